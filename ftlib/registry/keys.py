"""API keys: who may ask the endpoint, for which names, and how often.

    $FTLIB_HOME/keys.json   {"keys": [{"name", "sha256", "adapters", "requests_per_minute", "created"}]}, mode 0600

A key is shown once, when it is made. The file holds its SHA-256 alone: a key is 32 random bytes, which nobody finds by
trying, so that a slow hash would add nothing but time to each request.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError, InputError, nearest
from ftlib.files.atomic import write_text
from ftlib.files.home import home
from ftlib.files.locks import lock

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PREFIX = "ftlib-"  # of every key, so that one in a log or in a commit is known for what it is
LONGEST = 256  # characters; a longer token is no key, and is not hashed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """Who asks. `adapters` are names of the registry, exact; none stands for all."""

    name: str
    sha256: str
    adapters: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    created: str = ""

    def allows(self, reference: str) -> bool:
        """Whether it may ask for `support` or `support@3`: who may have a name may have each of its versions."""
        return not self.adapters or reference.partition("@")[0] in self.adapters


def default_path() -> Path:
    """`$FTLIB_HOME/keys.json`."""
    return home() / "keys.json"


class Keys:
    """The keys of a file, read again whenever it changes: a key that is added or removed counts from the next request.

    When the file goes, no key is valid. When it becomes unreadable, the keys of before stay and a warning is logged.
    """

    def __init__(self, path: Path, keys: Sequence[Key], stamp: tuple[int, ...] | None) -> None:
        self.path, self._keys, self._stamp = path, tuple(keys), stamp

    @classmethod
    def load(cls, path: Path | None = None) -> Keys:
        """The keys in `path` (`default_path()`), none where there is no such file.

        Raises InputError when others can read the file, or when it is damaged.
        """
        path = path or default_path()
        stamp = _stamp(path)  # before the content: a change between the two is seen at the next look
        return cls(path, _read(path), stamp)

    def __iter__(self) -> Iterator[Key]:
        self._refresh()
        return iter(self._keys)

    def find(self, token: str) -> Key | None:
        """The key that `token` is. Every key is compared, each in constant time, so that timing tells nothing."""
        self._refresh()
        if len(token) > LONGEST:
            return None
        digest, found = _digest(token), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def _refresh(self) -> None:
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = _read(self.path)
        except FtlibError as error:
            log.warning("The keys of before stay in force: %s", error)


def add(
    name: str, adapters: Sequence[str] = (), requests_per_minute: int | None = None, path: Path | None = None
) -> str:
    """Makes a key and returns it: the only time that it can be seen.

    Raises InputError for a name that is none or is taken, and for a rate below 1.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot be a key's name: use 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first."
        )
    if requests_per_minute is not None and requests_per_minute < 1:
        raise InputError(
            f"--requests-per-minute {requests_per_minute} lets nothing through: give 1 or more, or leave it out."
        )
    token = PREFIX + secrets.token_urlsafe(32)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    key = Key(name, _digest(token), tuple(dict.fromkeys(adapters)), requests_per_minute, created)
    path = path or default_path()
    with _locked(path):
        keys = _read(path)
        if name in {known.name for known in keys}:
            raise InputError(f"there is a key '{name}' already: remove it first ('ftlib keys remove {name}').")
        _write(path, (*keys, key))
    return token


def remove(name: str, path: Path | None = None) -> None:
    """Forgets a key: requests with it are refused from now on. Raises InputError when there is none of that name."""
    path = path or default_path()
    with _locked(path):
        keys = _read(path)
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise InputError(f"there is no key '{name}'.{nearest(name, [key.name for key in keys])}")
        _write(path, left)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes whenever the file does: it is replaced, so its inode changes even within one tick of the clock."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


def _read(path: Path) -> tuple[Key, ...]:
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InputError(f"{path} can be read by others: chmod 600 {path}")
            return tuple(_key(entry) for entry in json.load(file)["keys"])
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give it to the user that runs ftlib.") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            f"{path} is damaged: restore it, or remove it and make new keys ('ftlib keys add NAME')."
        ) from None


def _key(entry: dict[str, Any]) -> Key:
    """Raises LookupError, TypeError or ValueError for what `_write` does not write: a key must not allow too much."""
    rate = entry["requests_per_minute"]
    key = Key(entry["name"], entry["sha256"], tuple(entry["adapters"]), rate, entry["created"])
    texts = (key.name, key.sha256, *key.adapters)
    if not all(type(text) is str for text in texts) or isinstance(entry["adapters"], str):
        raise TypeError(entry)
    if not re.fullmatch("[0-9a-f]{64}", key.sha256) or not (rate is None or (type(rate) is int and rate > 0)):
        raise ValueError(entry)
    return key


def _write(path: Path, keys: Sequence[Key]) -> None:
    """Nobody else can read it, at no moment: the temporary file is made private before anything is in it."""
    write_text(path, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n", mode=0o600)


def _locked(path: Path) -> contextlib.AbstractContextManager[Any]:
    """One process at a time changes the file."""
    return lock(path.with_name(f".{path.name}.lock"))
