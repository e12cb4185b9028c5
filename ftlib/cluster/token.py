"""The token of a Ray cluster: where it lies, who may read it, how a request carries it.

The places are Ray's own, in Ray's order: RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, ~/.ray/auth_token.
Ray writes that last file readable by everybody; whoever reads it can run any code on the cluster, so it is closed here.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ftlib.errors import InputError

TOKEN, TOKEN_PATH, MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
OURS_ALONE = 0o600


def token_file() -> Path:
    """The file that holds the token, whether or not it is there."""
    return Path(os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token").expanduser()


def find_token() -> str | None:
    """The token of this user, or None. Closes a token file that others can read.

    Raises InputError for a file that cannot be read, or that belongs to another user and is open.
    """
    if os.environ.get(TOKEN):
        return os.environ[TOKEN].strip()
    file = token_file()
    if not file.is_file():
        return None
    close(file)
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError as error:
        raise InputError(f"the token file {file} cannot be read: {error.strerror}.") from error


def close(file: Path) -> None:
    """Takes a file's permissions from everyone but its owner. Raises InputError when that is refused."""
    if not file.stat().st_mode & 0o077:
        return
    try:
        file.chmod(OURS_ALONE)
    except OSError as error:
        raise InputError(f"the token file {file} can be read by others: chmod 600 {file}.") from error


def ensure_token() -> Path:
    """The token file, written with a new token where there is none: before Ray does it, and for its owner alone.

    Raises InputError where it cannot be written.
    """
    file = token_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OURS_ALONE)
    except FileExistsError:
        close(file)
        return file
    except OSError as error:
        raise InputError(
            f"the token file {file} cannot be written: {error.strerror}; {TOKEN_PATH} moves it."
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(secrets.token_hex(32))
    return file


def guard_local_cluster() -> None:
    """A cluster that this process starts asks for a token (Ray's default), unless its user has turned that off with
    RAY_AUTH_MODE: the file is made here, before Ray makes one that everybody can read."""
    if os.environ.get(MODE, "token").lower() == "token" and not os.environ.get(TOKEN):
        ensure_token()


def headers(token: str | None) -> dict[str, str]:
    """What a request to the cluster carries."""
    return {"Authorization": f"Bearer {token}"} if token else {}
