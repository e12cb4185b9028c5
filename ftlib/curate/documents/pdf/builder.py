"""Lines in the order of reading → blocks: the second pass over a PDF.

A paragraph ends where the distance to the next line is larger than usual, where a line is indented, or where its font's
size changes. It goes on over a column's and a page's end, past the notes at the page's foot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ftlib.curate.documents.blocks import Block, Kind
from ftlib.curate.documents.pdf.lines import Line
from ftlib.curate.documents.pdf.styles import CODE, LONGEST, WIDER, Styles

INDENT = 0.8  # of the font's size: a line that begins this much further right is indented
NOTE = 0.92  # of the text's size: a note's size is at most this
BULLETS = "•◦▪▫‣⁃∙●○■□–—∗➢✓"
ITEM = re.compile(rf"(?P<bullet>[{BULLETS}*-])\s+\S|(?P<number>\(?(?:\d{{1,3}}|[a-z]|[ivx]{{1,4}})[.)])\s+\S")
CAPTION = re.compile(r"(figure|fig\.|table|listing|abbildung|tabelle|tableau)\s+[\dA-Z.]+[.:]", re.I)
ENDED = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")


@dataclass
class Open:
    """A block that may go on. `lines` are its lines; `page` and `last` are its pages."""

    kind: Kind
    lines: list[Line]
    page: int
    last: int
    level: int = 0
    left: float = 0.0  # its column's edges
    right: float = 0.0


@dataclass
class Builder:
    """Given the columns of page after page, it gives the blocks that have ended."""

    styles: Styles
    blocks: list[Open] = field(default_factory=list)

    def page(self, number: int, columns: list[list[Line]]) -> Iterator[Block]:
        """The blocks that have ended once page `number` is read."""
        for column in columns:
            self._column(number, column)
        while len(self.blocks) > 1:
            yield from self._made(self.blocks.pop(0))

    def rest(self) -> Iterator[Block]:
        """What is open at the document's end."""
        for block in self.blocks:
            yield from self._made(block)

    def _column(self, page: int, lines: list[Line]) -> None:
        left, right = min(line.x0 for line in lines), max(line.x1 for line in lines)
        before: Line | None = None
        for place, line in enumerate(lines):
            after = lines[place + 1] if place + 1 < len(lines) else None
            block = self._block(page, before, line, after, left)
            block.left, block.right = left, right
            last = self.blocks[-1] if self.blocks else None
            if last is not None and (
                self._over(last, block, left) if before is None else self._goes_on(last, block, before)
            ):
                last.lines.append(line)
                last.last, last.left, last.right = page, left, right
            else:
                self.blocks.append(block)
            before = line
        self._notes_first()

    def _block(self, page: int, before: Line | None, line: Line, after: Line | None, left: float) -> Open:
        """The line as a block of its own."""
        level = self.styles.heading(page, before, line, after)
        kind: Kind = "paragraph"
        if line.is_table:
            kind = "table"
        elif level:
            kind = "heading"
        elif self._is_code(before, line, after, left):
            kind = "code"
        elif _is_item(line):
            kind = "list"
        return Open(kind, [line], page, page, level)

    def _is_code(self, before: Line | None, line: Line, after: Line | None, left: float) -> bool:
        """A monospaced line; not one that prose flows through, nor a term that the text under it explains."""
        if line.mono <= CODE:
            return line.mono > 0.5 and before is not None and after is not None and min(before.mono, after.mono) > CODE
        room = self.styles.leading(line.size) * WIDER
        prose = before is not None and before.mono <= CODE and not before.text.endswith(":")
        if before is not None and prose and before.y - line.y <= room and abs(before.x0 - line.x0) < 1:
            return False
        if after is None or after.mono > CODE:
            return after is not None or line.x0 - left > INDENT * line.size
        term = line.y - after.y <= room and after.x0 > line.x0 + INDENT * line.size
        alone = before is None or before.mono <= CODE
        return not (alone and (term or line.x0 - left < INDENT * line.size))

    def _goes_on(self, last: Open, block: Open, before: Line) -> bool:
        """Whether a line, as a block of its own, continues the block of the line before it in the column."""
        line = block.lines[0]
        gap, usual = before.y - line.y, self.styles.leading(line.size)
        close = 0 < gap <= WIDER * usual and abs(before.size - line.size) <= 0.08 * line.size
        if block.kind == last.kind == "heading":
            return close and block.level == last.level and before.style == line.style
        if block.kind == last.kind == "code":
            outdented = line.x0 < min(line.x0 for line in last.lines) - INDENT * line.size
            return gap <= (WIDER if outdented else 3.2) * usual
        if block.kind == last.kind == "list":
            return gap <= 2.5 * usual
        if block.kind != "paragraph" or CAPTION.match(line.text):
            return False
        if 0 < gap < 3 * usual and _is_cut(before, line):
            return last.kind == "paragraph"
        if last.kind == "list":
            return close and self._hangs(last, line)
        return last.kind == "paragraph" and close and not self._is_indented(last, before, line)

    def _hangs(self, last: Open, line: Line) -> bool:
        item = next((line for line in reversed(last.lines) if _is_item(line)), last.lines[0])
        return line.x0 > item.x0 + 0.3 * line.size or item.x1 > last.right - 2 * line.size

    def _is_indented(self, last: Open, before: Line, line: Line) -> bool:
        step = line.x0 - before.x0
        if step > INDENT * line.size:
            full = before.x1 > last.right - 2 * line.size
            return not (full and len(last.lines) == 1)  # the second line of an entry that hangs
        if step < -INDENT * line.size:
            return len(last.lines) > 1
        first = len(last.lines) == 1 and before.x0 - last.left > INDENT * line.size
        if first and ENDED.search(before.text) and before.x1 < last.right - line.size:
            return True
        right = max(line.x1 for line in last.lines[-3:]) if len(last.lines) > 2 else last.right
        return ENDED.search(before.text) is not None and before.x1 < right - 0.25 * (right - before.x0)

    def _over(self, last: Open, block: Open, left: float) -> bool:
        """Whether the first line of a column continues what the column before it left open."""
        line, before = block.lines[0], last.lines[-1]
        same = abs(line.size - before.size) <= 0.08 * line.size
        if block.kind in ("code", "list"):
            return last.kind == block.kind and same
        if block.kind != "paragraph" or last.kind not in ("paragraph", "list") or not same or CAPTION.match(line.text):
            return False
        below = len(last.lines) > 1 and abs(line.x0 - before.x0) < 1
        indented = last.kind == "paragraph" and not below and line.x0 - left > INDENT * line.size
        full = before.x1 > last.right - 4 * line.size and not indented
        return not ENDED.search(before.text) and (full or line.text[0].islower())

    def _notes_first(self) -> None:
        """A paragraph that a page's notes cut stands behind them, so that its rest can join it."""
        notes = 0
        while notes < len(self.blocks) - 1 and self._is_note(self.blocks[-1 - notes]):
            notes += 1
        place = len(self.blocks) - 1 - notes
        if notes and self.blocks[place].kind == "paragraph" and not ENDED.search(self.blocks[place].lines[-1].text):
            self.blocks.append(self.blocks.pop(place))

    def _is_note(self, block: Open) -> bool:
        return block.kind == "paragraph" and block.lines[0].size <= NOTE * self.styles.body

    def _made(self, block: Open) -> Iterator[Block]:
        texts = {"code": self._code, "list": self._list, "table": _table}
        text = texts.get(block.kind, self._paragraph)(block.lines)
        kind: Kind = "paragraph" if block.kind == "heading" and len(text) > LONGEST else block.kind
        if text:
            yield Block(kind, text, block.page, block.last, block.level if kind == "heading" else 0)

    def _paragraph(self, lines: list[Line]) -> str:
        return self.styles.vocabulary.join(line.text for line in lines)

    def _list(self, lines: list[Line]) -> str:
        items: list[list[Line]] = []
        for line in lines:
            if _is_item(line) or not items:
                items.append([line])
            else:
                items[-1].append(line)
        edges: list[float] = []
        for item in items:
            if not any(abs(edge - item[0].x0) <= INDENT * item[0].size for edge in edges):
                edges.append(item[0].x0)
        return "\n".join("  " * _depth(item[0], sorted(edges)) + _marked(self._paragraph(item)) for item in items)

    def _code(self, lines: list[Line]) -> str:
        """The lines with their indentation, and an empty line where the distance says so."""
        width = _width(lines)
        left = min(line.x0 for line in lines)
        usual = self.styles.leading(lines[0].size)
        made: list[str] = []
        for line, before in zip(lines, [lines[0], *lines], strict=False):
            if usual * 1.6 < before.y - line.y:
                made.append("")
            made.append(" " * round((line.x0 - left) / width) + _spaced(line, width))
        return "\n".join(made)


def _is_cut(before: Line, line: Line) -> bool:
    """Whether a sentence goes on from line to line, one under the other."""
    under = -1 < before.x0 - line.x0 < 3 * line.size and abs(before.size - line.size) <= 0.08 * line.size
    return under and line.text[0].islower() and not ENDED.search(before.text)


def _is_item(line: Line) -> bool:
    return ITEM.match(line.text) is not None and not (line.text[0] in "*-–" and line.words[0].face.mono)


def _table(lines: list[Line]) -> str:
    return lines[0].text


def _depth(line: Line, edges: list[float]) -> int:
    return sum(edge < line.x0 - INDENT * line.size for edge in edges)


def _marked(item: str) -> str:
    """A bullet is Markdown's; a number stays."""
    return f"- {item[1:].lstrip()}" if item[0] in BULLETS + "*" else item


def _width(lines: list[Line]) -> float:
    """Of one character, in points."""
    longest = max((word for line in lines for word in line.words), key=lambda word: len(word.text))
    return max(1.0, (longest.x1 - longest.x0) / len(longest.text))


def _spaced(line: Line, width: float) -> str:
    text, end = "", line.x0
    for word in line.words:
        text += " " * max(1 if text else 0, round((word.x0 - end) / width)) + word.text
        end = word.x1
    return text
