"""A Word file (.docx) as blocks: headings by their style's outline level, lists, tables, paragraphs.

Notes, headers, footers and text boxes are not read. Text that is marked as deleted is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ftlib.curate.documents import archives
from ftlib.curate.documents.blocks import Block, Document
from ftlib.curate.documents.pdf.tables import markdown
from ftlib.errors import DataError

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
NAMED = re.compile(r"heading (\d)", re.I)


def read_docx(name: str, path: Path) -> Document:
    """Raises DataError for a file that is broken, encrypted, without text or over a bound."""
    with archives.opened(name, path, "word/document.xml") as file:
        levels = _levels(file) if "word/styles.xml" in file.namelist() else {}
        with file.open("word/document.xml") as text:
            blocks = list(_blocks(name, text, levels))
    if not blocks:
        raise DataError(f"{name}: it has no text.")
    return Document(name, iter(blocks))


def _levels(file: Any) -> dict[str, int]:
    """The level of the headings of each style, by the style's name (which no language changes) or its outline level."""
    import xml.etree.ElementTree as tree

    found: dict[str, int] = {}
    with file.open("word/styles.xml") as text:
        for style in tree.parse(text).iter(f"{W}style"):
            name, outline = style.find(f"{W}name"), style.find(f".//{W}outlineLvl")
            named = NAMED.fullmatch(name.get(f"{W}val", "")) if name is not None else None
            if named:
                found[style.get(f"{W}styleId", "")] = int(named[1])
            elif outline is not None and outline.get(f"{W}val", "9") < "6":
                found[style.get(f"{W}styleId", "")] = int(outline.get(f"{W}val", "0")) + 1
    return found


def _blocks(name: str, text: IO[bytes], levels: dict[str, int]) -> Iterator[Block]:
    """What stands in the body, one element at a time."""
    import xml.etree.ElementTree as tree

    depth, items = 0, list[str]()
    try:
        for event, node in tree.iterparse(text, ["start", "end"]):
            inside = node.tag in (f"{W}p", f"{W}tbl")
            depth += inside * (1 if event == "start" else -1)
            if event == "start" or depth or not inside:
                continue
            block, item = _block(node, levels)
            if item:
                items.append(item)
            elif block:
                yield from _list(items)
                items = []
                yield block
            node.clear()
    except (tree.ParseError, ValueError) as error:
        raise DataError(f"{name}: its XML is broken.") from error
    yield from _list(items)


def _list(items: list[str]) -> Iterator[Block]:
    if items:
        yield Block("list", "\n".join(items))


def _block(node: Any, levels: dict[str, int]) -> tuple[Block | None, str]:
    """A table's, a heading's or a paragraph's block; or an item of a list."""
    if node.tag == f"{W}tbl":
        rows = [[_cell(cell) for cell in row.findall(f"{W}tc")] for row in node.iter(f"{W}tr")]
        width = max(map(len, rows), default=0)
        return (Block("table", markdown([row + [""] * (width - len(row)) for row in rows])) if width else None), ""
    said = _text(node)
    style = node.find(f"{W}pPr/{W}pStyle")
    level = levels.get(style.get(f"{W}val", ""), 0) if style is not None else 0
    numbered = node.find(f"{W}pPr/{W}numPr/{W}ilvl")
    if not said:
        return None, ""
    if level:
        return Block("heading", said, level=level), ""
    if numbered is not None:
        return None, "  " * min(8, int(numbered.get(f"{W}val", "0"))) + f"- {said}"
    return Block("paragraph", said), ""


def _cell(cell: Any) -> str:
    return " ".join(filter(None, map(_text, cell.iter(f"{W}p"))))


def _text(paragraph: Any) -> str:
    said = ""
    for node in paragraph.iter():
        if node.tag == f"{W}t":
            said += node.text or ""
        elif node.tag in (f"{W}tab", f"{W}br"):
            said += " "
    return " ".join(said.split())
