"""The files of Office (.docx, .xlsx) are zips of XML. What is in them is bounded before any of it is parsed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftlib.errors import DataError

MEMBERS = 10_000
UNPACKED = 512 << 20  # bytes of all XML together


@contextmanager
def opened(name: str, path: Path, must_hold: str) -> Iterator[zipfile.ZipFile]:
    """The zip. Raises DataError where it is broken, encrypted or too large unpacked, has no member `must_hold`, or
    declares a document type, which Office never does and a bomb of entities needs."""
    kind = path.suffix[1:].upper()
    try:
        with zipfile.ZipFile(path) as file:
            _check(name, file, must_hold, kind)
            yield file
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise DataError(f"{name}: it is no {kind} file, or a broken one.") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise DataError(f"{name}: it is encrypted. Save it without a password.") from error


def _check(name: str, file: zipfile.ZipFile, must_hold: str, kind: str) -> None:
    members = file.infolist()
    if must_hold not in {member.filename for member in members}:
        raise DataError(f"{name}: it is no {kind} file, or a broken one.")
    xml = [member for member in members if member.filename.endswith((".xml", ".rels"))]
    size = sum(member.file_size for member in xml)
    if len(members) > MEMBERS or size > UNPACKED:
        raise DataError(f"{name}: it unpacks to {size >> 20} MiB of XML, and at most {UNPACKED >> 20} MiB are read.")
    for member in xml:
        with file.open(member) as text:
            if b"<!DOCTYPE" in text.read(4096):
                raise DataError(f"{name}: its XML declares a document type, which no Office file does.")
