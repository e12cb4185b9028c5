"""An HTML page as blocks: its main text by trafilatura, without menus, banners and footers. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.curate.documents.blocks import Block, Document
from ftlib.curate.documents.needs import needs
from ftlib.curate.documents.pdf.tables import markdown
from ftlib.errors import DataError

LARGEST = 20 << 20  # bytes
MOST_TAGS = 500_000
MOST_CELLS = 200  # of a table's row


def read_html(name: str, path: Path) -> Document:
    """Headings, paragraphs, lists, tables and code. Raises DataError for a page over a bound and for one without text."""
    needs("trafilatura")
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(f"{name}: it has {size >> 20} MiB, and at most {LARGEST >> 20} MiB of HTML are read.")
    page = path.read_bytes()
    if page.count(b"<") > MOST_TAGS:
        raise DataError(f"{name}: it has more than {MOST_TAGS:,} tags: it is no document.")
    blocks = list(_blocks(_main(name, page)))
    if not blocks:
        raise DataError(f"{name}: the page has no text of its own, only menus or scripts.")
    return Document(name, iter(blocks))


def _main(name: str, page: bytes) -> Any:
    """trafilatura's tree of the main text."""
    import trafilatura

    try:
        found = trafilatura.bare_extraction(
            page, include_comments=False, include_tables=True, include_formatting=False, favor_recall=True
        )
    except RecursionError as error:
        raise DataError(f"{name}: its tags are nested too deeply: it is no document.") from error
    if found is None:
        raise DataError(f"{name}: the page has no text of its own, only menus or scripts.")
    return found.body


def _blocks(body: Any) -> Iterator[Block]:
    for node in body:
        if node.tag == "head":
            yield from _block("heading", _flat(node), int((node.get("rend") or "h2")[-1]))
        elif node.tag == "list":
            yield from _block("list", "\n".join(_items(node)))
        elif node.tag == "table":
            yield from _block("table", _table(node))
        elif node.tag == "code" or (node.tag == "quote" and "\n" in "".join(node.itertext()).strip()):
            yield from _block("code", "".join(_verbatim(node)).strip("\n"))
        elif isinstance(node.tag, str):
            yield from _block("paragraph", _flat(node))
        if node.tail and node.tail.strip():
            yield from _block("paragraph", " ".join(node.tail.split()))


def _block(kind: Any, text: str, level: int = 0) -> Iterator[Block]:
    if text.strip():
        yield Block(kind, text, level=level)


def _flat(node: Any) -> str:
    return " ".join("".join(node.itertext()).split())


def _verbatim(node: Any) -> Iterator[str]:
    """Its text with its lines: trafilatura writes some as <lb/>."""
    yield node.text or ""
    for inner in node:
        yield from ("\n",) if inner.tag == "lb" else _verbatim(inner)
        yield inner.tail or ""


def _items(node: Any) -> Iterator[str]:
    for item in node.iter("item"):
        depth = sum(parent.tag == "list" for parent in item.iterancestors()) - 1
        own = " ".join([item.text or "", *(_own(inner) for inner in item)])
        if own.strip():
            yield "  " * depth + "- " + " ".join(own.split())


def _own(inner: Any) -> str:
    """The text within an item that is not another list's."""
    return ("" if inner.tag == "list" else "".join(inner.itertext())) + " " + (inner.tail or "")


def _table(node: Any) -> str:
    rows = [[_flat(cell) for cell in row.iter("cell")][:MOST_CELLS] for row in node.iter("row")]
    rows = [row for row in rows if any(row)]
    width = max(map(len, rows), default=0)
    if width < 2:
        return "\n".join(row[0] for row in rows)
    return markdown([row + [""] * (width - len(row)) for row in rows])
