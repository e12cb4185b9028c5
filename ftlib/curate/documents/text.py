"""Plain text and Markdown as blocks, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ftlib.curate.documents.blocks import Block, Document
from ftlib.errors import DataError

LONGEST_LINE = 16 << 20  # bytes: a longer one is no text
LONGEST_BLOCK = 2_000  # lines without an empty one: then a block ends there
HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")
UNDERLINE = re.compile(r"(=+|-{2,})\s*$")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
ITEM = re.compile(r"\s*([-*+]|\d{1,9}[.)])\s+\S")
DIVIDER = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$")

Numbered = tuple[int, str]


def read_text(name: str, path: Path) -> Document:
    """Paragraphs are parted by empty lines. Raises DataError for what is no UTF-8 or UTF-16 text as it is read."""
    return Document(name, _paragraphs(lines(name, path)), "line")


def read_markdown(name: str, path: Path) -> Document:
    """Headings (`#` and underlined), lists, tables, fenced code and paragraphs; raw HTML stays text."""
    return Document(name, markdown_blocks(lines(name, path)), "line")


def lines(name: str, path: Path) -> Iterator[Numbered]:
    """(number from 1, line without its end). Raises DataError for a line over a bound and for what is no text."""
    with path.open("rb") as file:
        encoding = "utf-16" if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with path.open(encoding=encoding) as text:
        number = 0
        try:
            while line := text.readline(LONGEST_LINE):
                number += 1
                if len(line) >= LONGEST_LINE:
                    raise DataError(
                        f"{name}:{number}: the line has more than {LONGEST_LINE >> 20} MiB: this is no text."
                    )
                if "\0" in line:
                    raise DataError(f"{name}:{number}: this is no text: it holds a zero byte.")
                yield number, line.rstrip("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: after line {number} this is no UTF-8 text. Save it as UTF-8.") from error


def _paragraphs(numbered: Iterator[Numbered]) -> Iterator[Block]:
    for part in _stretches(numbered):
        yield Block("paragraph", " ".join(line.strip() for _, line in part), part[0][0], part[-1][0])


def _stretches(numbered: Iterator[Numbered]) -> Iterator[list[Numbered]]:
    """Lines that no empty one parts."""
    part: list[Numbered] = []
    for number, line in numbered:
        if line.strip():
            part.append((number, line))
        if part and (not line.strip() or len(part) >= LONGEST_BLOCK):
            yield part
            part = []
    if part:
        yield part


def markdown_blocks(numbered: Iterator[Numbered]) -> Iterator[Block]:
    """The blocks of lines of Markdown."""
    part: list[Numbered] = []
    for number, line in numbered:
        fence = FENCE.match(line)
        if fence:
            yield from _mixed(part)
            part = []
            yield from _fenced(number, fence[1], numbered)
        elif not line.strip() or len(part) >= LONGEST_BLOCK:
            yield from _mixed(part)
            part = [(number, line)] if line.strip() else []
        else:
            part.append((number, line))
    yield from _mixed(part)


def _fenced(start: int, mark: str, numbered: Iterator[Numbered]) -> Iterator[Block]:
    code: list[str] = []
    for number, line in numbered:
        if line.strip().startswith(mark) and not line.strip().strip(mark[0]):
            break
        code.append(line)
        if len(code) >= LONGEST_BLOCK:
            yield Block("code", "\n".join(code), start, number)
            code, start = [], number + 1
    if code:
        yield Block("code", "\n".join(code), start, start + len(code))


def _mixed(part: list[Numbered]) -> Iterator[Block]:
    """The blocks of lines that no empty one parts: a heading may stand right above its text."""
    place = 0
    while place < len(part):
        number, line = part[place]
        heading = HEADING.match(line)
        under = UNDERLINE.match(part[place + 1][1]) if place + 1 < len(part) else None
        if heading:
            yield Block("heading", heading[2], number, number, len(heading[1]))
            place += 1
        elif under and "|" not in line and not ITEM.match(line):
            yield Block("heading", line.strip(), number, number + 1, 1 if under[1][0] == "=" else 2)
            place += 2
        else:
            end = _until_heading(part, place)
            yield from _plain(part[place:end])
            place = end


def _until_heading(part: list[Numbered], place: int) -> int:
    return next((later for later in range(place + 1, len(part)) if HEADING.match(part[later][1])), len(part))


def _plain(part: list[Numbered]) -> Iterator[Block]:
    first, last = part[0][0], part[-1][0]
    text = [line for _, line in part]
    if len(text) > 1 and "|" in text[0] and DIVIDER.match(text[1].strip()):
        yield Block("table", "\n".join(line.strip() for line in text), first, last)
    elif all(line.startswith(("    ", "\t")) for line in text):
        yield Block("code", "\n".join(line.removeprefix("\t").removeprefix("    ") for line in text), first, last)
    else:
        yield from _lists(part)


def _lists(part: list[Numbered]) -> Iterator[Block]:
    """A list that stands right under its paragraph is a block of its own."""
    start = next((place for place, (_, line) in enumerate(part) if ITEM.match(line)), len(part))
    if start:
        yield Block("paragraph", " ".join(line.strip() for _, line in part[:start]), part[0][0], part[start - 1][0])
    if part[start:]:
        yield Block("list", "\n".join(_items(part[start:])), part[start][0], part[-1][0])


def _items(part: list[Numbered]) -> Iterator[str]:
    begun = 0
    for is_item, group in groupby(part, key=lambda numbered: bool(ITEM.match(numbered[1]))):
        texts = [line.rstrip() for _, line in group]
        if is_item:
            yield from texts[: len(texts) - 1]
            held = texts[-1]
            begun = 1
        else:
            yield " ".join([held, *(text.strip() for text in texts)])
            begun = 0
    if begun:
        yield held
