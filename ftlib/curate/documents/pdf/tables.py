"""Tables of a page: by the rules drawn around their cells, or by cells that stand under each other.

Three kinds: a grid (rules both ways: a row is what stands between two of them), open rules (as LaTeX's booktabs: rules
above, under the header and below; a row is a line) and none (three lines or more whose cells begin at the same places).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from ftlib.curate.documents.pdf.lines import Line, joined, pieces
from ftlib.curate.documents.pdf.rules import Rule
from ftlib.curate.documents.pdf.words import Word

ALIGNED = 3.0  # points: rules or cells whose edges differ by less stand under each other
HEADER = 60.0  # points: the second rule of an open table stands this close to the first
ROWS, CELLS = 3, 2  # of a table without rules, at the least


@dataclass(frozen=True)
class Table:
    """`rows` have one cell for each column; the page's place is that of its top."""

    rows: list[list[str]]
    top: float
    bottom: float
    x0: float
    x1: float

    def holds(self, word: Word) -> bool:
        return self.bottom <= word.y <= self.top and self.x0 - ALIGNED <= word.x0 and word.x1 <= self.x1 + ALIGNED

    def markdown(self) -> str:
        """The table in Markdown's pipes; the first row is its header."""
        return markdown(self.rows)


def markdown(rows: list[list[str]]) -> str:
    """Rows of as many cells as a table in Markdown's pipes. A pipe in a cell is escaped, a line break is a space."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]])


def ruled(words: list[Word], across: list[Rule], down: list[Rule]) -> list[Table]:
    """The tables with rules, from the top."""
    tables = []
    for group in _stacks(across):
        top, bottom = group[0].at, group[-1].at
        box = Table([], top, bottom, min(rule.low for rule in group), max(rule.high for rule in group))
        inside = [word for word in words if box.holds(word)]
        bars = _bars(down, box)
        rows = _grid(inside, group, bars) if len(bars) >= 3 else _open(inside, group)
        if len(rows) >= 2 and len(rows[0]) >= CELLS and _is_filled(rows):
            tables.append(Table(rows, top, bottom, box.x0, box.x1))
    return tables


def _stacks(across: list[Rule]) -> list[list[Rule]]:
    """Rules of one width under each other: two or more."""
    stacks: list[list[Rule]] = []
    for rule in across:
        home = next((stack for stack in stacks if _under(stack[-1], rule)), None)
        if home is None:
            stacks.append([rule])
        else:
            home.append(rule)
    return [stack for stack in stacks if len(stack) > 1]


def _under(above: Rule, rule: Rule) -> bool:
    return abs(above.low - rule.low) <= ALIGNED and abs(above.high - rule.high) <= ALIGNED


def _bars(down: list[Rule], box: Table) -> list[float]:
    """The places of vertical rules that go along the whole table, from the left. A frame around code has but two."""
    lengths: dict[float, float] = {}
    for rule in down:
        if box.x0 - ALIGNED <= rule.at <= box.x1 + ALIGNED:
            place = next((place for place in lengths if abs(place - rule.at) <= ALIGNED), rule.at)
            inside = min(rule.high, box.top) - max(rule.low, box.bottom)
            lengths[place] = lengths.get(place, 0.0) + max(0.0, inside)
    return sorted(place for place, length in lengths.items() if length >= 0.7 * (box.top - box.bottom))


def _grid(words: list[Word], across: list[Rule], bars: list[float]) -> list[list[str]]:
    edges = [-rule.at for rule in across]
    rows: list[list[list[Word]]] = [[[] for _ in bars[1:]] for _ in edges[1:]]
    for word in words:
        row = bisect_right(edges, -word.y) - 1
        column = bisect_right(bars, (word.x0 + word.x1) / 2) - 1
        if 0 <= row < len(rows) and 0 <= column < len(bars) - 1:
            rows[row][column].append(word)
    texts = [[" ".join(line.text for line in pieces(cell)) for cell in row] for row in rows]
    return [row for row in texts if any(row)]


def _open(words: list[Word], across: list[Rule]) -> list[list[str]]:
    """A row for each line; a line without a first cell, or with the rest of one, goes on with the row above."""
    code = sum(word.face.mono for word in words) > 0.5 * len(words)
    if len(across) < 3 or across[0].at - across[1].at > HEADER or code:
        return []
    cuts = _cuts(words)
    rows: list[list[str]] = []
    for line in joined(pieces(words)):
        cells = _cells(line, cuts)
        if len(rows) > 1 and (not cells[0] or (cells[0][0].islower() and not any(cells[1:]))):
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    return rows


def _cuts(words: list[Word]) -> list[float]:
    """The places that no word covers, between those that some do, at least half a font's size wide."""
    cuts: list[float] = []
    reached = 0.0
    for word in sorted(words, key=lambda word: word.x0):
        if reached and word.x0 - reached > 0.5 * word.size:
            cuts.append((reached + word.x0) / 2)
        reached = max(reached, word.x1)
    return cuts


def _cells(line: Line, cuts: list[float]) -> list[str]:
    cells: list[list[str]] = [[] for _ in range(len(cuts) + 1)]
    for word in line.words:
        cells[bisect_right(cuts, word.x0)].append(word.text)
    return [" ".join(cell) for cell in cells]


def _is_filled(rows: list[list[str]]) -> bool:
    """Whether half of the cells hold text: a frame around a drawing has few that do."""
    cells = [cell for row in rows for cell in row]
    return sum(map(bool, cells)) >= 0.5 * len(cells)


def aligned(parts: list[Line]) -> list[Table]:
    """The tables without rules among the pieces of one column, from the top. Code and contents are none."""
    tables: list[Table] = []
    run: list[list[Line]] = []
    right = max((part.x1 for part in parts), default=0.0)
    for row in [*_by_line(parts), []]:
        if run and not _goes_on(run[-1], row):
            tables += _table(run, right)
            run = []
        if len(row) >= CELLS and not any(part.mono > 0.5 for part in row[1:]):
            run.append(row)
    return tables


def _by_line(parts: list[Line]) -> list[list[Line]]:
    found: list[list[Line]] = []
    for part in parts:
        if found and abs(found[-1][0].y - part.y) < 0.25 * part.size:
            found[-1].append(part)
        else:
            found.append([part])
    return [sorted(row, key=lambda part: part.x0) for row in found]


def _goes_on(above: list[Line], row: list[Line]) -> bool:
    if len(above) != len(row) or above[0].y - row[0].y > 2.2 * above[0].size:
        return False
    return all(abs(one.x0 - other.x0) <= ALIGNED for one, other in zip(above, row, strict=True))


def _explains(run: list[list[Line]], right: float) -> bool:
    """Whether the second cells are texts that go on in the next line: terms and what they mean, and no table."""
    return any(row[1].x1 > right - 3 * row[1].size for row in run)


def _table(run: list[list[Line]], right: float) -> list[Table]:
    if len(run) < ROWS + (len(run[0]) == CELLS) or (len(run[0]) == CELLS and _explains(run, right)):
        return []
    words = [word for row in run for part in row for word in part.words]
    top, bottom = max(word.y for word in words) + 1, min(word.y for word in words) - 1
    rows = [[part.text for part in row] for row in run]
    return [Table(rows, top, bottom, min(word.x0 for word in words), max(word.x1 for word in words))]
