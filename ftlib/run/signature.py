"""Which runs are ours: resuming one unpickles what Ray Tune has kept in it, and a pickle can run any code.

A run directory that is made here is signed with a key that only this user has (FTLIB_HOME/key): its name, what it was
resolved to, and the directory itself, as the disk knows it. One that came in an archive, or was copied from somebody,
is another directory and has no such signature; nor is one believed that others can write to. At a URL, where everybody
with the bucket may write, each file is signed by its content (`run/index.py`), with a key of that run alone, which
its workers on other machines get from its driver.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from ftlib.errors import FtlibError, InputError
from ftlib.files.atomic import write_first, write_json
from ftlib.files.home import home
from ftlib.files.json_files import read_json
from ftlib.run.directory import Run
from ftlib.run.layout import RESOLVED, SIGNATURE, TENSORBOARD, WANDB

OTHERS_WRITE = 0o022
KEY_BYTES = 32
OF_TRACKERS = (WANDB, TENSORBOARD)  # nothing reads them, and W&B links from them to its own logs


def _key() -> bytes:
    """This user's key, made where there is none. Raises FtlibError for a file that cannot be one: an empty key would
    sign for everybody."""
    file = home() / "key"
    try:
        key = _read(file)
        key = _make(file) if key is None else key
    except OSError as error:
        raise FtlibError(f"the key {file} cannot be read or written: {error.strerror}; FTLIB_HOME moves it.") from error
    if len(key) < KEY_BYTES:
        raise FtlibError(
            f"the key {file} is cut short, so it would sign for everybody: remove it, and the next command makes "
            "another. "
            "What the old one has signed then wants --trust."
        )
    return key


def _read(file: Path) -> bytes | None:
    try:
        with file.open("rb") as opened:
            about = os.fstat(opened.fileno())
            if about.st_mode & 0o077 or about.st_uid not in (os.getuid(), 0):
                raise FtlibError(f"the key {file} can be read by others, who could sign with it: chmod 600 {file}")
            return opened.read(2**16)
    except FileNotFoundError:
        return None


def _make(file: Path) -> bytes:
    """A new key under its name, whole and on the disk, unless another process is first: then that one's."""
    write_first(file, secrets.token_bytes(KEY_BYTES), 0o600)
    return _read(file) or b""


def mac(*parts: str, key: str = "") -> str:
    """The signature of some texts, this user's or, with `key`, that of whoever has it."""
    secret = bytes.fromhex(key) if key else _key()
    return hmac.new(secret, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def key_for(url: str) -> str:
    """The key of what this user keeps at a URL. From it, nobody finds the user's own or that of another URL."""
    return mac("key", url)


def digest_of(file: Path) -> str:
    """The digest of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def content_of(folder: Path) -> str:
    """A digest of every file of a folder, names and all."""
    sha = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        sha.update(f"{file.relative_to(folder)}\0{digest_of(file)}\0".encode())
    return sha.hexdigest()


def matches(signature: object, *parts: str, key: str = "") -> bool:
    """Whether a signature is this user's, or that of whoever has `key`, of these texts."""
    return isinstance(signature, str) and hmac.compare_digest(signature.encode(), mac(*parts, key=key).encode())


def _identity(run: Run) -> tuple[str, str, str]:
    return run.name, str(run.path.stat().st_ino), digest_of(run.path / RESOLVED)


def sign(run: Run, trusted: bool = False) -> None:
    """Says that this run directory is ours; `trusted` where that is so because somebody said --trust."""
    write_json(run.path / SIGNATURE, {"signature": mac(*_identity(run)), "trusted": trusted})


def doubt(run: Run, why: str, url: str) -> None:
    """Says of a run directory, which came from a URL, what keeps it from being ours, for `check` to tell."""
    write_json(run.path / SIGNATURE, {"signature": None, "why": why, "url": url})


def came_from(run: Run) -> str | None:
    """The URL that a run which is not ours was brought from."""
    url = (read_json(run.path / SIGNATURE, dict) or {}).get("url")
    return url if isinstance(url, str) else None


def was_trusted(run: Run) -> bool:
    """Whether a run is ours because somebody has said --trust: not all that it holds at its URL is signed."""
    return bool((read_json(run.path / SIGNATURE, dict) or {}).get("trusted"))


def why_foreign(run: Run) -> str | None:
    """What speaks against a run being this user's, made on this machine, as a part of a sentence; None where nothing
    does."""
    told = read_json(run.path / SIGNATURE, dict) or {}
    if isinstance(told.get("why"), str):
        return str(told["why"])
    if not matches(told.get("signature"), *_identity(run)):
        return f"{run.path} was not made by you on this machine"
    return next(_open_to_others(run.path), None)


def check(run: Run, deed: str = "resuming it") -> None:
    """Raises InputError for a run directory that this user has not made here, or that others can write to."""
    why = why_foreign(run)
    if why is not None:
        raise InputError(
            f"{why}, and {deed} can run any code that its maker has put there: --trust takes it all the same, if you "
            "know "
            "where it comes from."
        )


def _open_to_others(folder: Path) -> Iterator[str]:
    """What of a run others can write, or have made, or leads out of it: the first is enough."""
    inside = [
        path for entry in folder.iterdir() if entry.name not in OF_TRACKERS for path in (entry, *entry.rglob("*"))
    ]
    for path in (folder, *inside):
        try:
            about = path.lstat()
        except FileNotFoundError:  # a run that goes on
            continue
        if stat.S_ISLNK(about.st_mode):
            if not path.resolve().is_relative_to(folder.resolve()):
                yield f"{path} is a link out of the run"
        elif about.st_mode & OTHERS_WRITE:
            yield f"{path} can be written by others ('chmod -R go-w {folder}' ends that)"
        elif about.st_uid not in (os.getuid(), 0):
            yield f"{path} belongs to another user"
