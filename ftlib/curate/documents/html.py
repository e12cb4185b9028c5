"""An HTML page as blocks, without what stands around its text: menus, banners, footers, forms. Nothing is fetched.

This is a walk over lxml's tree and not trafilatura: of bash's manual page that one kept no heading and no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftlib.curate.documents.blocks import Block, Document
from ftlib.curate.documents.pdf.tables import markdown
from ftlib.curate.optional import needed
from ftlib.errors import DataError

LARGEST = 20 << 20  # bytes
MOST_TAGS = 500_000
DEEPEST = 150  # tags within each other: what is deeper is text
MOST_CELLS = 200  # of a table's row
MENU = 0.7  # of a list's characters are in links

AROUND = {
    "aside", "audio", "button", "canvas", "dialog", "footer", "form", "head", "iframe", "input", "math", "menu", "nav",
    "noscript", "object", "script", "select", "style", "svg", "template", "textarea", "video",
}  # fmt: skip
ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "menu"}
HEADINGS = {f"h{level}": level for level in range(1, 7)}
LISTS = {"ul", "ol"}
BLOCKS = {
    *HEADINGS, *LISTS, "address", "article", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "header", "hr", "html", "li", "main", "p", "pre", "section", "summary", "table",
    "tbody", "td", "tfoot", "th", "thead", "tr",
}  # fmt: skip
CLASSES = re.compile(
    r"(^|\s)(nav(header|footer|bar|igation)?|breadcrumbs?|side-?bar|menu|toc|footer|cookie\S*)(\s|$)", re.I
)
PERMALINKS = {"¶", "#", "§", "🔗"}


def read_html(name: str, path: Path) -> Document:
    """Headings, paragraphs, lists, tables and code, with their lines in the file.

    Raises DataError for a page over a bound and for one without text.
    """
    needed("lxml")
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(f"{name}: it has {size >> 20} MiB, and at most {LARGEST >> 20} MiB of HTML are read.")
    page = path.read_bytes()
    if page.count(b"<") > MOST_TAGS:
        raise DataError(f"{name}: it has more than {MOST_TAGS:,} tags: it is no document.")
    body = _parsed(page)
    blocks = [] if body is None else list(_joined(_blocks(_main(body), 0)))
    if not blocks:
        raise DataError(f"{name}: the page has no text of its own, only menus or scripts.")
    return Document(name, iter(blocks), "line")


def _parsed(page: bytes) -> Any:
    """The page's body; None for a page without one. UTF-8 where the bytes are, else what the page says that it is."""
    from lxml import etree, html

    try:
        page.decode()
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = None
    parser = html.HTMLParser(encoding=encoding, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        tree = html.document_fromstring(page, parser=parser)
    except (etree.ParserError, ValueError):
        return None
    return tree.find("body")


def _main(body: Any) -> Any:
    """The one part that the page itself calls its main text, where that has half of the text; else the whole body."""
    whole = len(body.text_content())
    for path in (".//main", ".//*[@role='main']", ".//article"):
        found = body.findall(path)
        if len(found) == 1 and len(found[0].text_content()) >= 0.3 * whole:
            return found[0]
    return body


def _blocks(node: Any, depth: int) -> Iterator[Block]:
    """The blocks within a tag; text between them is a paragraph."""
    text, first = node.text or "", node.sourceline
    for inner in node:
        if _is_around(inner):
            pass
        elif inner.tag not in BLOCKS and not _holds_block(inner):
            text += " " if inner.tag == "br" else _flat(inner, collapse=False)
        else:
            yield from _paragraph(text, first)
            text, first = "", inner.sourceline
            yield from _block(inner, depth + 1)
        text += inner.tail or ""
    yield from _paragraph(text, first)


def _block(node: Any, depth: int) -> Iterator[Block]:
    line = node.sourceline or 0
    if node.tag in HEADINGS:
        yield from _said("heading", _flat(node), line, HEADINGS[node.tag])
    elif node.tag == "pre":
        yield from _said("code", _verbatim(node), line)
    elif depth > DEEPEST:
        yield from _paragraph(_flat(node), line)
    elif node.tag in LISTS:
        if not _is_menu(node):
            yield from _items(node, depth, 0)
    elif node.tag == "dl":
        yield from _terms(node, depth)
    elif node.tag == "table" and _is_data(node):
        yield from _said("table", _table(node), line)
    else:
        yield from _blocks(node, depth)


def _paragraph(text: str, line: int) -> Iterator[Block]:
    yield from _said("paragraph", " ".join(text.split()), line or 0)


def _said(kind: Any, text: str, line: int, level: int = 0) -> Iterator[Block]:
    if text.strip():
        yield Block(kind, text, line, line + text.count("\n") * (kind == "code"), level)


def _items(node: Any, depth: int, inner_lists: int) -> Iterator[Block]:
    """A block for each item; what is no text within it (code, a table) is a block of its own."""
    for number, item in enumerate(node.iterchildren("li"), 1):
        mark = "- " if node.tag == "ul" else f"{number}. "
        for block in _blocks(item, depth + 1):
            if block.kind == "paragraph":
                yield replace(block, kind="list", text="  " * inner_lists + mark + block.text)
                mark = "  "
            elif block.kind == "list":
                yield replace(block, text="\n".join("  " + line for line in block.text.split("\n")))
            else:
                yield block


def _terms(node: Any, depth: int) -> Iterator[Block]:
    """`term: what it means` as an item where that is text alone; else the term, and the blocks of what it means."""
    terms: list[str] = []
    for part in node.iter("dt", "dd"):
        if next(part.iterancestors("dl"), None) is not node:
            continue
        if part.tag == "dt":
            terms.append(_flat(part))
            continue
        blocks, term = list(_blocks(part, depth + 1)), ", ".join(filter(None, terms))
        terms = []
        if term and [block.kind for block in blocks] == ["paragraph"]:
            yield replace(blocks[0], kind="list", text=f"- {term}: {blocks[0].text}")
        else:
            yield from _paragraph(term, part.sourceline)
            yield from blocks
    yield from _paragraph(", ".join(terms), node.sourceline)


def _joined(blocks: Iterator[Block]) -> Iterator[Block]:
    """Items that follow each other are one list."""
    held: Block | None = None
    for block in blocks:
        if held is not None and held.kind == block.kind == "list":
            held = replace(held, text=f"{held.text}\n{block.text}", last=max(held.last, block.last))
            continue
        if held is not None:
            yield held
        held = block
    if held is not None:
        yield held


def _table(node: Any) -> str:
    rows = [[_flat(cell) for cell in row.iterchildren("td", "th")][:MOST_CELLS] for row in node.iter("tr")]
    rows = [row for row in rows if any(row)]
    width = max(map(len, rows), default=0)
    return markdown([row + [""] * (width - len(row)) for row in rows]) if width else ""


def _is_data(node: Any) -> bool:
    """Whether a table is one of data, and not what lays out the page: two columns, and no blocks in its cells."""
    if any(True for _ in node.iter("pre", "ul", "ol", "dl", *HEADINGS)) or len(list(node.iter("table"))) > 1:
        return False
    return any(len(list(row.iterchildren("td", "th"))) > 1 for row in node.iter("tr"))


def _is_around(node: Any) -> bool:
    if not isinstance(node.tag, str) or node.tag in AROUND or node.get("role") in ROLES:
        return True
    if node.get("hidden") is not None or node.get("aria-hidden") == "true" or CLASSES.search(node.get("class", "")):
        return True
    if node.tag == "header":
        return node.find(".//h1") is None
    return bool(node.tag == "a" and (node.text or "").strip() in PERMALINKS)


def _is_menu(node: Any) -> bool:
    linked = sum(len(link.text_content()) for link in node.iter("a") if link.get("href"))
    return linked >= MENU * max(1, len(node.text_content().strip()))


def _holds_block(node: Any) -> bool:
    return next(node.iter(*BLOCKS), None) is not None


def _flat(node: Any, collapse: bool = True) -> str:
    """The text of a tag, without what stands around text."""
    text = "".join(_texts(node, "\n" if node.tag == "pre" else " ", 0))
    return " ".join(text.split()) if collapse else text


def _verbatim(node: Any) -> str:
    return "".join(_texts(node, "\n", 0)).strip("\n").expandtabs()


def _texts(node: Any, line_break: str, depth: int) -> Iterator[str]:
    yield node.text or ""
    for inner in node:
        if inner.tag == "br":
            yield line_break
        elif not _is_around(inner) and depth < DEEPEST:
            yield " " if inner.tag in ("td", "th", "li", "p", "div") else ""
            yield from _texts(inner, line_break, depth + 1)
        yield inner.tail or ""
