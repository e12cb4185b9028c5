"""One page: its pieces (words of a line, or a table), and its columns of lines in the order of reading."""

from __future__ import annotations

import re
from typing import Any

from ftlib.curate.documents.pdf.columns import columns
from ftlib.curate.documents.pdf.lines import Line, joined, pieces
from ftlib.curate.documents.pdf.rules import page_rules
from ftlib.curate.documents.pdf.tables import Table, aligned, ruled
from ftlib.curate.documents.pdf.words import Face, Word, bulleted, page_words, underscored

LEADERS = re.compile(r"(\.\s?){4,}\s*[\divxlc]*$|(\s\.){3,}", re.I)  # 3.1.2 Quoting . . . . . . 6
PAGE_NUMBER = re.compile(r"[\divxlc]{1,5}", re.I)
CONTENTS = 3  # lines with leaders that a page of contents has at the least


def page_pieces(page: Any) -> list[Line]:
    """The pieces of a pypdfium2 page, from its top; what stands in a ruled table is one piece. Raises TooDense."""
    words = page_words(page)
    if not words:
        return []
    rules = page_rules(page)
    words = underscored(words, sorted(rules.dashes, key=lambda dash: dash.low))
    words = bulleted(words, rules.dots)
    tables = ruled(words, rules.across, rules.down)
    free = [word for word in words if not any(table.holds(word) for table in tables)]
    return sorted([*pieces(free), *map(_as_line, tables)], key=lambda part: -part.y)


def page_columns(parts: list[Line]) -> list[list[Line]]:
    """Pieces as columns of lines in the order of reading, without the lines of a table of contents."""
    without = _without_contents(parts)
    return [lines for column in columns(without) if (lines := joined(_with_tables(column)))]


def _as_line(table: Table) -> Line:
    return Line([Word(table.markdown(), table.x0, table.x1, table.top, Face(0.0, False, False, 0))], is_table=True)


def _with_tables(column: list[Line]) -> list[Line]:
    tables = aligned([part for part in column if not part.is_table])
    kept = [part for part in column if part.is_table or not any(table.holds(part.words[0]) for table in tables)]
    return sorted([*kept, *map(_as_line, tables)], key=lambda part: -part.y)


def _without_contents(parts: list[Line]) -> list[Line]:
    """What names pages (contents, an index) says nothing without them. A page of little else is left out whole."""
    led = [part for part in parts if LEADERS.search(part.text)]
    if len(led) < CONTENTS:
        return parts
    numbered = [part for part in parts if PAGE_NUMBER.fullmatch(part.text.split()[-1])]
    gone = {id(part) for part in [*led, *numbered]}
    ys = [part.y for part in parts if id(part) in gone]
    kept = [part for part in parts if not any(abs(part.y - y) < 2 for y in ys)]
    return kept if len(kept) > 0.5 * len(parts) else []
