"""A document → chunks of at most so many tokens, each of which a person can read alone.

A document is parts that are not cut where it can be helped: a sentence, an item, a table's row, a line of code. Parts
make units: a section (`headings`), a block (`paragraphs`) or a page (`pages`). A unit that fits is never cut. Small
neighbours stand together in one chunk; a unit larger than a chunk is cut between its parts, and each piece after the
first begins with the last sentences of the one before it (`overlap`). A chunk knows the headings it stands under.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Literal

from ftlib.curate.documents.blocks import Block, Document
from ftlib.curate.sentences import sentences

Count = Callable[[str], int]
By = Literal["headings", "paragraphs", "pages"]

BEGUN = 0.25  # of a chunk: one that holds less takes the beginning of a unit that does not fit in it whole
TERM = 80  # characters of a line that leads into the text under it, where no full stop ends it
ENDED = re.compile(r"[.!?;…。！？][\"'”’)\]]*$")
FENCE = "\n```"  # of code, in Markdown


@dataclass(frozen=True)
class Chunk:
    """`headings` are those that its beginning stands under, from the outermost. `text` is Markdown.

    `where` is its place (`manual.pdf#page=12-13`). `tokens` is the length of `text`, by the counter it was cut with.
    """

    text: str
    headings: tuple[str, ...]
    where: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Part:
    """What is not cut. `glue` stands before it where it follows the part before it in its unit's text."""

    text: str
    glue: str
    chain: tuple[str, ...]
    unit: int
    first: int
    last: int
    header: str = ""  # of the table that a row belongs to
    is_heading: bool = False
    is_code: bool = False
    leads: bool = False  # into what stands under it


def chunk(
    document: Document,
    *,
    tokens: int = 512,
    overlap: int = 64,
    by: By = "headings",
    count: Count,
    with_headings: bool = True,
) -> Iterator[Chunk]:
    """The chunks in order, as they are read. `count` is the length of a text in tokens (of the tokenizer that trains).

    A chunk has at most `tokens` tokens. `with_headings` writes the headings above a chunk at its text's beginning.
    Raises ValueError unless 0 <= overlap <= tokens / 2, and DataError where the document cannot be read.
    """
    if tokens < 1 or not 0 <= overlap <= tokens / 2:
        raise ValueError(f"overlap must be between 0 and half of tokens ({tokens}), and is {overlap}.")
    maker = _Maker(document, tokens, overlap, count, with_headings)
    for _, unit in groupby(_parts(document.blocks, by), key=lambda part: part.unit):
        yield from maker.take(piece for part in unit for piece in maker.fitting(part))
    yield from maker.rest()


@dataclass
class _Maker:
    document: Document
    tokens: int
    overlap: int
    count: Count
    with_headings: bool

    def __post_init__(self) -> None:
        self.open: list[Part] = []  # of the chunk that is being filled
        self.repeated = 0  # how many of these are overlap

    def take(self, unit: Iterator[Part]) -> Iterator[Chunk]:
        """The chunks that are full once this unit is read."""
        begun, whole = self._begun(unit)
        if whole and self._fits([*self.open, *begun]):
            self.open += begun
            return
        if len(self.open) > self.repeated and (whole or self._size(self.open) > BEGUN * self.tokens):
            yield from self._close(before=begun if whole else begun[:1])
        for part in chain(begun, unit):
            if not self._fits([*self.open, part]):
                yield from self._close(before=[part])
            self.open.append(part)

    def _begun(self, unit: Iterator[Part]) -> tuple[list[Part], bool]:
        """The first parts of a unit, and whether they are all of it and fit in a chunk: a unit may be a whole book."""
        begun: list[Part] = []
        size = 0
        for part in unit:
            begun.append(part)
            size += self.count(part.text)
            if size > 1.5 * self.tokens:  # parts are a little longer alone than together
                return begun, False
        return begun, self._fits(begun)

    def rest(self) -> Iterator[Chunk]:
        yield from self._close(before=[])

    def fitting(self, part: Part) -> Iterator[Part]:
        """The part; in pieces where it is longer than a chunk: by its words, and a word by its characters."""
        if self._fits([part]):
            yield part
            return
        halves = _halves(_bare(part))
        if not halves:
            yield replace(part, chain=(), header="", is_code=False)
        for half in halves:
            yield from self.fitting(half)

    def _close(self, before: list[Part]) -> Iterator[Chunk]:
        """Ends the open chunk. The next one begins with what leads into `before`, the parts that did not fit."""
        kept: list[Part] = []
        while before and self._leads(len(kept), [*kept, *before]):
            kept.insert(0, self.open[-1 - len(kept)])
        done = self.open[: len(self.open) - len(kept)]
        if len(done) > self.repeated:
            yield self._made(done)
        lead = self._overlap(done, before) if before and not kept else []
        self.open, self.repeated = [*lead, *kept], len(lead)

    def _leads(self, kept: int, following: list[Part]) -> bool:
        """Whether the part before those kept goes with them into the next chunk: a heading, a term, `For example:`."""
        place = len(self.open) - 1 - kept
        return place > self.repeated and self.open[place].leads and self._fits([self.open[place], *following])

    def _overlap(self, done: list[Part], following: list[Part]) -> list[Part]:
        """The last parts of a chunk, of at most `overlap` tokens together, that its next one begins with."""
        lead: list[Part] = []
        for part in reversed(done):
            longer = [part, *lead]
            if (
                part.is_heading
                or part.chain != following[0].chain
                or part.header
                or self.count(_text(longer)) > self.overlap
            ):
                break
            if not self._fits([*longer, *following]):
                break
            lead = longer
        return lead if len(lead) < len(done) else []

    def _fits(self, parts: list[Part]) -> bool:
        return self._size(parts) <= self.tokens

    def _size(self, parts: list[Part]) -> int:
        return self.count(self._whole(parts)) if parts else 0

    def _whole(self, parts: list[Part]) -> str:
        above = parts[0].chain if self.with_headings else ()
        lines = [f"{'#' * min(level, 6)} {title}" for level, title in enumerate(above, 1)]
        return "\n\n".join([*lines, _text(parts)])

    def _made(self, parts: list[Part]) -> Chunk:
        text = self._whole(parts)
        places = [place for part in parts for place in (part.first, part.last) if place]
        where = self.document.where(min(places, default=0), max(places, default=0))
        own = (_title(parts[0]),) if parts[0].is_heading else ()
        return Chunk(text, (*parts[0].chain, *own), where, self.count(text))


def _title(heading: Part) -> str:
    return heading.text.lstrip("#").strip()


def _bare(part: Part) -> Part:
    """A part that does not fit, without what a chunk would repeat above it: its table's header, the outer headings."""
    return replace(part, header="", chain=part.chain[1:])


def _text(parts: Iterable[Part]) -> str:
    """Parts one after the other; lines of code between fences, rows of a table under its header."""
    text, fenced = "", False
    for part in parts:
        ends = fenced and not (part.is_code and part.glue != "\n\n")
        text += (FENCE if ends else "") + (part.glue if text else "")
        begins = part.is_code and (ends or not fenced)
        if begins and not part.text.strip():  # an empty line
            fenced = fenced and not ends
            continue
        header = f"{part.header}\n" if part.header and not text else ""
        text += (FENCE.lstrip() + "\n" if begins else "") + header + part.text
        fenced = part.is_code
    return (text.rstrip() + FENCE if fenced else text).strip("\n").rstrip()


def _halves(part: Part) -> list[Part]:
    """A part as two: between words near its middle, within a word that is longer. None for a single character."""
    text = part.text
    if len(text) < 2:
        return []
    middle = len(text) // 2
    space = max(text.rfind(" ", 1, middle), 0) or text.find(" ", middle)
    cut = space if 0 < space < len(text) - 1 else middle
    return [replace(part, text=text[:cut]), replace(part, text=text[cut:], glue="")]


def _parts(blocks: Iterable[Block], by: By) -> Iterator[Part]:
    """The parts of blocks in order; a number for the unit that each belongs to."""
    levels: tuple[tuple[int, str], ...] = ()
    unit, led = 0, False  # `led`: the block before this one was a heading, which its first block stays with
    page = 0
    for block in blocks:
        heading = block.kind == "heading"
        if heading:
            levels = (*((level, title) for level, title in levels if level < block.level), (block.level, block.text))
        fresh = {"headings": heading, "paragraphs": True, "pages": block.first != page}[by]
        unit += fresh and not led
        led, page = heading, block.first
        titles = tuple(title for _, title in levels)
        above = titles[:-1] if heading else titles
        for text, glue, header in _pieces(block):
            yield Part(
                text,
                glue,
                above,
                unit,
                block.first,
                block.last,
                header,
                heading,
                block.kind == "code",
                _leads_in(block),
            )


def _leads_in(block: Block) -> bool:
    short = block.kind == "paragraph" and len(block.text) <= TERM
    return block.kind == "heading" or (short and not ENDED.search(block.text))


def _pieces(block: Block) -> Iterator[tuple[str, str, str]]:
    """(text, what parts it from the text before it, header of its table) of what is not cut."""
    if block.kind == "heading":
        yield f"{'#' * max(1, min(block.level, 6))} {block.text}", "\n\n", ""
        return
    if block.kind == "paragraph":
        for number, sentence in enumerate(sentences(block.text)):
            yield sentence, "" if number else "\n\n", ""
        return
    lines = block.text.split("\n")
    header = "\n".join(lines[:2]) if block.kind == "table" and len(lines) > 2 else ""
    if header:
        yield header, "\n\n", ""
        lines = lines[2:]
    for number, line in enumerate(lines):
        yield line, "\n" if number or header else "\n\n", header
