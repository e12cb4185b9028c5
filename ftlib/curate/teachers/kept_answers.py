"""Answers of teachers, kept for ever: one file each below FTLIB_HOME/data/answers, by what they depend on.

A file is whole or not there, so what was paid for before a kill is there after it. Answers are rows' content: nobody
but the user may read them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ftlib.curate.teachers.request import Reply
from ftlib.errors import FtlibError
from ftlib.files.atomic import write_text
from ftlib.files.home import home
from ftlib.files.json_files import read_json


def kept(key: str) -> Reply | None:
    """The answer to what has this key; None where none is kept, or what is there is damaged."""
    try:
        found = read_json(_file(key), dict)
        return None if found is None else Reply(**found)
    except (FtlibError, TypeError):
        return None


def keep(key: str, reply: Reply) -> None:
    """Keeps an answer. Raises StorageError where the disk is full for a minute."""
    write_text(_file(key), json.dumps(asdict(reply)), mode=0o600)


def _file(key: str) -> Path:
    return home() / "data" / "answers" / key[:2] / f"{key}.json"
