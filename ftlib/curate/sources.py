"""The sources of a recipe as parts: files, and pieces of large files of lines, each with the hash of its content.

A part is what one worker reads. Its hash, its name and how it is read decide about its blocks, so what has not changed
is not read again, and rows that are added at the end of a file of JSON lines leave the blocks before them as they are.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlib.config.recipe import Recipe, SourceSection
from ftlib.curate.store import key_of
from ftlib.data.sampled import sampled
from ftlib.errors import DataError, nearest
from ftlib.files.object_store import local_copy

PIECE = 8 * 2**20  # bytes of a file of lines that are one part, or a line more
LONGEST_LINE = 16 * 2**20  # bytes: a longer one is no row that a model could learn from
READ_WHOLE = 256 * 2**20  # bytes of a file that can only be read as a whole
ENDINGS = {
    "pdf": (".pdf",), "html": (".html", ".htm"), "docx": (".docx",),
    "text": (".txt", ".md", ".markdown"), "jsonl": (".jsonl", ".json"),
    "csv": (".csv",), "tsv": (".tsv",), "xlsx": (".xlsx",), "parquet": (".parquet",),
}  # fmt: skip
OF_LINES = ("jsonl", "csv", "tsv", "text")
SMALL = ("html", "text")  # kinds with many small files
LOT = 64  # files that are read together, about
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Part:
    """A file, or the bytes of it from `start` to `end`, which begin at line `line`. `label` is its name for a person,
    `content` the hash of these bytes. Of a data set on the Hub, `path` is its name."""

    source: int
    section: SourceSection
    label: str
    path: str
    content: str
    start: int = 0
    end: int | None = None
    line: int = 1

    @property
    def key(self) -> str:
        """The hash of all that the rows of the part depend on."""
        reading = self.section.model_dump(mode="json", exclude={"license", self.section.kind})
        return key_of(self.section.kind, reading, self.label, self.content, self.line)

    @property
    def size(self) -> int:
        """Its bytes; 0 for a data set on the Hub, and for a log."""
        if self.section.kind in ("hub", "log"):
            return 0
        return Path(self.path).stat().st_size if self.end is None else self.end - self.start


def all_parts(recipe: Recipe) -> list[Part]:
    """The parts of all sources, in order. It reads every file once, for its hash. Raises DataError as `parts_of`."""
    return [part for number, source in enumerate(recipe.sources) for part in parts_of(number, source)]


def together(parts: Sequence[Part]) -> list[tuple[Part, ...]]:
    """Parts that one worker reads into blocks of their own: small neighbours of the kinds SMALL together, any other
    alone. Where one lot ends depends on a part's content, so a new file moves the lots beside it alone."""
    lots: list[list[Part]] = []
    open_lot = False
    for part in parts:
        small = part.section.kind in SMALL and part.size < PIECE
        if not (small and open_lot):
            lots.append([])
        lots[-1].append(part)
        open_lot = small and int(part.content[:8], 16) % LOT != 0 and sum(one.size for one in lots[-1]) < PIECE
    return [tuple(lot) for lot in lots]


def parts_of(number: int, source: SourceSection) -> Iterator[Part]:
    """The parts of the `number`-th source, in order. Raises DataError for what is not there, a folder without a file of
    its kind, an empty file, and a line without end."""
    if source.kind == "hub":
        yield _of_hub(number, source)
        return
    if source.kind == "log":
        yield from _of_log(number, source)
        return
    for label, path in files_of(f"from.{number}.{source.kind}", source):
        if path.stat().st_size == 0:
            raise DataError(f"from.{number}: {path} is empty.")
        if source.kind == "jsonl" and path.suffix.lower() != ".json":
            yield from _pieces(number, source, label, path)
        else:
            if path.suffix.lower() == ".json" and path.stat().st_size > READ_WHOLE:
                raise DataError(f"{path}: a .json file of more than {READ_WHOLE >> 20} MiB: write it as .jsonl.")
            yield Part(number, source, label, str(path), _digest(path, lines=source.kind in OF_LINES))


def files_of(key: str, source: SourceSection) -> list[tuple[str, Path]]:
    """The files of a place, each with its name for a person, in the order of their names. Raises DataError where there
    is none; `key` stands before the message."""
    path = Path(local_copy(key, source.place)).expanduser()
    if path.is_file():
        return [(path.name, path)]
    endings = ENDINGS[source.kind]
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in endings and file.is_file())
        if not found:
            raise DataError(f"{key}: the folder {path} holds no {' or '.join(endings)} file.")
        return [(file.relative_to(path).as_posix(), file) for file in found]
    found = sorted(file for name in glob.glob(str(path), recursive=True) if (file := Path(name)).is_file())
    if not found:
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{key}: there is no file '{source.place}'.{nearest(path.name, beside)}")
    root = Path(glob.escape(str(path)).split("[")[0] or ".")  # of the pattern, what stands before its first sign
    root = root if root.is_dir() else root.parent
    return [(file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name, file) for file in found]


def _pieces(number: int, source: SourceSection, label: str, path: Path) -> Iterator[Part]:
    """A file of lines, cut after lines."""
    start, line = 0, 1
    with path.open("rb") as file:
        while data := file.read(PIECE):
            if start == 0 and data[:2] in UTF16:
                raise DataError(f"{path}: UTF-16 text: save it as UTF-8.")
            data += _rest_of_line(file) if not data.endswith(b"\n") else b""
            longest = _longest_line(data)
            if longest > LONGEST_LINE:
                raise _too_long(path, line)
            content = hashlib.sha256(data).hexdigest()
            yield Part(number, source, label, str(path), content, start, start + len(data), line)
            start, line = start + len(data), line + data.count(b"\n")


def _rest_of_line(file: object) -> bytes:
    rest: bytes = file.readline(LONGEST_LINE + 1)  # type: ignore[attr-defined]
    return rest


def _longest_line(data: bytes) -> int:
    """The bytes of the longest line, where it can be too long."""
    return len(data) if len(data) <= LONGEST_LINE else max(map(len, data.split(b"\n")))


def _digest(path: Path, lines: bool) -> str:
    """The SHA-256 of a file. With `lines`, raises DataError for a line without end, before anybody reads it."""
    sha, without = hashlib.sha256(), 0
    number = 1
    with path.open("rb") as file:
        while data := file.read(PIECE):
            sha.update(data)
            first = data.find(b"\n")
            without = without + len(data) if first < 0 else len(data) - 1 - data.rfind(b"\n")
            if lines and without > LONGEST_LINE:
                raise _too_long(path, number + data.count(b"\n"))
            number += data.count(b"\n")
    return sha.hexdigest()


def _too_long(path: Path, line: int) -> DataError:
    return DataError(
        f"{path}:{line}: the line has more than {LONGEST_LINE >> 20} MiB, which no row has: is the file one line?"
    )


def _of_log(number: int, source: SourceSection) -> Iterator[Part]:
    """The chats of a name, as one part; none where there is no chat yet."""
    sha = hashlib.sha256()
    chats = 0
    for chat in sampled(source.place, until=source.until):
        sha.update(f"{chat.request}\0{chat.time}\0".encode())
        chats += 1
    if chats:
        yield Part(number, source, f"log:{source.place}", source.place, sha.hexdigest())


def _of_hub(number: int, source: SourceSection) -> Part:
    from ftlib.curate.reading import hub_table
    from ftlib.data.read import Source

    digest = Source("from", source.place, table=hub_table(source)).digest()
    return Part(number, source, source.place, source.place, digest)
