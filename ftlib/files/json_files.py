"""JSON files and files of JSON lines, which may be another's or damaged: what is read is checked."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files.locks import hold, open_no_link
from ftlib.files.patience import patiently

JSON_BYTES = 64 * 2**20  # of one file: far above any, far below a memory
OWNERS = ("trials",)  # a folder of them: a message names the one that a file is of
ROWS_BYTES = 4 * 2**30  # of a file of rows


def damaged(path: Path, why: str) -> FtlibError:
    """The error for a file that ftlib cannot have written: it names the trial, the file, and what is wrong."""
    parts = path.parts
    at = max((place for place, part in enumerate(parts[:-1]) if part in OWNERS), default=None)
    owner = f"trial {parts[at + 1]}: " if at is not None and at + 2 < len(parts) else ""
    return FtlibError(f"{owner}{path} is damaged ({why}): put a whole one back, or do without that run or trial.")


def _bytes_of(path: Path, most: int = JSON_BYTES) -> bytes | None:
    """What is in a file, None where there is none. Raises FtlibError for what is no file, or too large to be read."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise damaged(path, "it is no file")
        if about.st_size > most:
            raise damaged(path, f"it has more than {most:,} bytes")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_json(content: bytes) -> Any:
    """The value of JSON from anywhere. Raises ValueError, with a few words, for what is none."""
    if not content.strip(b" \t\r\n\0"):
        raise ValueError("it is empty" if not content.strip() else "it holds NUL bytes alone")
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError("it holds NUL bytes" if b"\0" in content else "it is no JSON, or was cut short") from None


def read_json(path: Path, kind: type = object) -> Any:
    """The JSON in a file, or None when there is none. Raises FtlibError, naming trial and file, for a damaged one; with
    `kind=dict`, also for what is no mapping."""
    content = _bytes_of(path)
    if content is None:
        return None
    try:
        value = parse_json(content)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    if not isinstance(value, kind):
        raise damaged(path, "it holds no mapping")
    return value


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds one JSON line. A line is one write, so a reader sees all of it or a last line without its end, which the
    next line takes the place of. Never through a link: it could lead to any file."""
    line = (json.dumps(row, default=str) + "\n").encode()

    def write() -> None:
        with open(open_no_link(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "r+b", buffering=0) as file:
            with contextlib.suppress(OSError):  # where there are no locks, one write is one line all the same
                hold(file)
            end = _end_of_lines(file)
            try:
                file.write(line)
            except OSError:
                os.truncate(path, end)  # a full disk takes a part of a line
                raise

    patiently(write, path)


def _end_of_lines(file: Any) -> int:
    """Where the last whole line ends. What a kill, or the power, has left after it is cut off."""
    size: int = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file.fileno(), end)
    return end


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last line cut short by a kill is left out. Raises FtlibError, with the number of the
    line, for any other that is damaged."""
    content = _bytes_of(path, ROWS_BYTES)
    lines = (content or b"").split(b"\n")[:-1]
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line]


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise damaged(path, f"line {number}: {error}") from None
    if not isinstance(row, dict):
        raise damaged(path, f"line {number}: it holds no mapping")
    return row
