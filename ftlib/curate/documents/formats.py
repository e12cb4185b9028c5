"""The formats of documents, by the ends of their files' names; and the files that a pattern names."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from ftlib.curate.documents.blocks import Document
from ftlib.curate.documents.docx import read_docx
from ftlib.curate.documents.html import read_html
from ftlib.curate.documents.pdf.sandbox import read_pdf
from ftlib.curate.documents.text import read_markdown, read_text
from ftlib.errors import DataError, nearest

FORMATS: dict[str, Callable[[str, Path], Document]] = {
    ".pdf": read_pdf,
    ".html": read_html,
    ".htm": read_html,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".txt": read_text,
    ".docx": read_docx,
}


def read_document(path: Path, name: str = "") -> Document:
    """The document in a file. `name` is what it is called in places and messages (its file's name by default).

    Raises DataError for a file that is not there, is empty, or cannot be read; what is wrong further on is raised as
    its blocks are read.
    """
    name = name or path.name
    if not path.is_file():
        raise DataError(f"{name}: there is no such file.")
    if path.stat().st_size == 0:
        raise DataError(f"{name} is empty.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        hint = nearest(suffix, FORMATS)
        raise DataError(f"{name}: a document's name ends in {known(FORMATS)}, and not in '{suffix}'.{hint}")
    return FORMATS[suffix](name, path)


def find_files(pattern: str, suffixes: tuple[str, ...]) -> list[tuple[str, Path]]:
    """(name, path) of the files that a path, a folder or a glob (`manuals/**/*.pdf`) names, by name.

    A name is a file's path below the folder, or below the part of the pattern without stars. Raises DataError where
    there is none that ends in one of `suffixes`.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [(path.name, path)]
    if path.is_dir():
        base, found = path, list(path.rglob("*"))
    else:
        base = _base(path)
        found = [Path(entry) for entry in glob.iglob(str(path), recursive=True)]
    files = sorted(file for file in found if file.is_file() and file.suffix.lower() in suffixes)
    if not files:
        raise DataError(_nothing(pattern, path, suffixes))
    return [(file.relative_to(base).as_posix(), file) for file in files]


def known(suffixes: object) -> str:
    """`.md, .pdf or .txt`."""
    *most, last = sorted(suffixes)  # type: ignore[call-overload]
    return f"{', '.join(most)} or {last}" if most else str(last)


def _nothing(pattern: str, path: Path, suffixes: tuple[str, ...]) -> str:
    if path.is_dir():
        return f"the folder {pattern} holds no {known(suffixes)} file."
    if glob.has_magic(pattern):
        return f"no {known(suffixes)} file is named by '{pattern}'."
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no such file or folder: '{pattern}'.{nearest(path.name, beside)}"


def _base(path: Path) -> Path:
    """The folder before the first part with a star."""
    parts = path.parts
    stars = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:stars]) if stars else Path()
