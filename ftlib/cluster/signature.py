"""Which runs are ours: resuming one unpickles what Ray Tune has kept in it, and a pickle can run any code.

A run directory that is made here is signed with a key that only this user has (FTLIB_HOME/key): its name, what it was
resolved to, and the directory itself, as the disk knows it. One that came in an archive, or was copied from somebody, is
another directory and has no such signature. Tune's state at a URL, where everybody with the bucket may write, is signed
by its content.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ftlib.errors import FtlibError, InputError
from ftlib.runs import Run, home, read_json, write_json

FILE = "signature.json"
OTHERS_WRITE = 0o002


def _key() -> bytes:
    file = home() / "key"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_bytes()
    except OSError as error:
        raise FtlibError(f"the key {file} cannot be written: {error.strerror}; FTLIB_HOME moves it.") from error
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(secrets.token_bytes(32))
    return file.read_bytes()


def mac(*parts: str) -> str:
    """This user's signature of some texts."""
    return hmac.new(_key(), "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def content_of(folder: Path) -> str:
    """A digest of every file of a folder, names and all."""
    sha = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        with file.open("rb") as opened:
            sha.update(f"{file.relative_to(folder)}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\0".encode())
    return sha.hexdigest()


def matches(signature: str | None, *parts: str) -> bool:
    """Whether a signature is this user's, of these texts."""
    return signature is not None and hmac.compare_digest(signature, mac(*parts))


def _identity(run: Run) -> tuple[str, str, str]:
    resolved = hashlib.sha256((run.path / "resolved.json").read_bytes()).hexdigest()
    return run.name, str(run.path.stat().st_ino), resolved


def sign(run: Run) -> None:
    """Says that this run directory is ours."""
    write_json(run.path / FILE, {"signature": mac(*_identity(run))})


def check(run: Run) -> None:
    """Raises InputError for a run directory that this user has not made here, or that others can write to."""
    told = read_json(run.path / FILE) or {}
    if matches(told.get("signature"), *_identity(run)) and not run.path.stat().st_mode & OTHERS_WRITE:
        return
    raise InputError(
        f"{run.path} was not made by you on this machine, and resuming it can run any code that its maker has put there: "
        "'ftlib resume --trust' takes it all the same, if you know where it comes from."
    )
