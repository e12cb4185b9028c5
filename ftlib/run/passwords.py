"""The password of a study's database: it stands in no file of a run, in no tracker and in no message.

An experiment goes on with the URL as it is without its password. The whole URL comes, when the database is opened, from
`FTLIB_SWEEP_STORAGE` in the environment or from $FTLIB_HOME/secrets.json (mode 0600), where it was put when the
experiment was read; without either the database's own way is left, such as ~/.pgpass or PGPASSWORD.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode

from ftlib.errors import FtlibError
from ftlib.files.atomic import write_text
from ftlib.files.home import home
from ftlib.files.json_files import read_json
from ftlib.files.locks import lock

VARIABLE = "FTLIB_SWEEP_STORAGE"
SECRET = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)  # in the name of a URL's argument
HIDDEN = "…"
_seen: dict[str, str] = {}  # by this process: a URL without its password -> the whole URL


def without(url: str) -> str:
    """A URL without its password, `user:PASSWORD@` or an argument whose name says that it is one."""
    scheme, separator, rest = url.partition("://")
    rest, mark, query = rest.partition("?")
    end = _end_of_password(rest)
    if end is not None:
        rest = rest[: rest.index(":")] + rest[end:]
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if not SECRET.search(name)]
    if len(kept) < len(parse_qsl(query, keep_blank_values=True)):
        query = urlencode(kept, safe="/:@")
    return f"{scheme}{separator}{rest}{mark if query else ''}{query}"


def _end_of_password(rest: str) -> int | None:
    """Where `user:password` ends: at the last @ before the host's end. None where there is no password."""
    at, colon = rest.find("@"), rest.find(":")
    if at < 0 or not 0 <= colon < at or "/" in rest[:colon]:
        return None
    host_ends = rest.find("/", at)
    return rest.rfind("@", 0, host_ends if host_ends >= 0 else len(rest))


def keep(url: str) -> str:
    """The URL without its password, which is put where `whole` finds it."""
    bare = without(url)
    if bare != url and _seen.get(bare) != url:
        _seen[bare] = url
        with lock(_file().with_name(".secrets.lock")):
            known = _kept()
            if known.get(bare) != url:
                write_text(_file(), json.dumps({**known, bare: url}, indent=2) + "\n", mode=0o600)
    return bare


def whole(url: str) -> str:
    """The URL with its password, where it is known."""
    said = os.environ.get(VARIABLE, "")
    if said and without(said) == url:
        _seen[url] = said
    elif url not in _seen and url in (kept := _kept()):
        _seen[url] = kept[url]
    return _seen.get(url, url)


def hidden(text: str) -> str:
    """A text without the passwords that this process has seen."""
    for bare, url in _seen.items():
        text = text.replace(url, bare)
        for password in sorted(_passwords(url), key=len, reverse=True):
            text = text.replace(f":{password}@", "@")
            if len(password) > 3:  # a shorter one is a part of many words
                text = text.replace(password, HIDDEN)
    return text


def _passwords(url: str) -> set[str]:
    """As they are written, and as they are meant."""
    rest = url.partition("://")[2]
    rest, _, query = rest.partition("?")
    end = _end_of_password(rest)
    found = {rest[rest.index(":") + 1 : end]} if end is not None else set()
    found |= {value for name, value in parse_qsl(query) if SECRET.search(name)}
    return {form for password in found for form in (password, unquote(password)) if form}


def _file() -> Path:
    return home() / "secrets.json"


def _kept() -> dict[str, str]:
    """Raises FtlibError for a file that others can read."""
    file = _file()
    known = read_json(file, dict) or {}
    if known and file.stat().st_mode & 0o077:
        raise FtlibError(f"{file} holds passwords and can be read by others: chmod 600 {file}")
    return {str(name): str(url) for name, url in known.items()}
