"""A PDF file → its blocks, with pdfium: two passes, a page at a time. It runs in a process of its own (`sandbox`).

Why pdfium and not pdfplumber, pdfminer.six or pypdf: it gives every glyph with its place, size and font, as pdfplumber
does, in a seventh of the time (docs/documents.md); and pypdf's text has lost the columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ftlib.curate.documents.blocks import Block
from ftlib.curate.documents.pdf.builder import Builder
from ftlib.curate.documents.pdf.furniture import EDGE
from ftlib.curate.documents.pdf.lines import Line
from ftlib.curate.documents.pdf.page import page_columns, page_pieces
from ftlib.curate.documents.pdf.styles import Styles, heights, outline
from ftlib.curate.documents.pdf.words import TooDense

MAX_PAGES = 20_000
MAX_OUTLINE = 20_000  # entries


class Unreadable(Exception):
    """The file cannot be read; the message says why, after the file's name."""


class Reading:
    """One file. Raises Unreadable from its constructor and while its blocks are read."""

    def __init__(self, path: str) -> None:
        self.file = _opened(path)
        self.pages = len(self.file)
        if self.pages > MAX_PAGES:
            raise Unreadable(f"it has {self.pages:,} pages, and at most {MAX_PAGES:,} are read: split it.")
        self.styles = Styles(outline(self._entries()))
        self.pictures: list[int] = []  # pages that are pictures without text

    def study(self, tick: Any) -> None:
        """The first pass. `tick(page)` is called before each page."""
        texts = 0
        for number in range(1, self.pages + 1):
            tick(number)
            with self._page(number) as (page, parts):
                self.styles.add(number, parts)
                texts += bool(parts)
                if not parts and _has_picture(page):
                    self.pictures.append(number)
        if not texts:
            raise Unreadable("no page has text. Where its pages are scans, read them with OCR first (ocrmypdf).")

    def blocks(self, tick: Any) -> Iterator[Block]:
        """The second pass."""
        builder = Builder(self.styles)
        for number in range(1, self.pages + 1):
            tick(number)
            with self._page(number) as (_, parts):
                yield from builder.page(number, page_columns(self._body(number, parts)))
        yield from builder.rest()

    def _body(self, number: int, parts: list[Line]) -> list[Line]:
        """The pieces of a page without what repeats on others."""
        rows = heights(parts)
        gone = _edge(self.styles, number, rows[:EDGE]) + _edge(self.styles, number, rows[: -EDGE - 1 : -1])
        return [part for part in parts if not any(abs(part.y - y) < 2 for y in gone)]

    @contextmanager
    def _page(self, number: int) -> Iterator[tuple[Any, list[Line]]]:
        import pypdfium2

        try:
            page = self.file[number - 1]
        except pypdfium2.PdfiumError as error:
            raise Unreadable(f"page {number} cannot be read: the file is broken.") from error
        try:
            yield page, page_pieces(page)
        except TooDense as error:
            raise Unreadable(f"page {number} has more characters than a page can: it is no document.") from error
        finally:
            page.close()

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        for count, entry in enumerate(self.file.get_toc(max_depth=8)):
            target = entry.get_dest()
            page = target.get_index() if target else None
            if count >= MAX_OUTLINE:
                return
            if page is not None:
                yield page + 1, entry.level + 1, entry.get_title()


def _edge(styles: Styles, number: int, rows: list[tuple[float, str]]) -> list[float]:
    """The heights of the furniture at one edge: from the edge inwards, as far as it goes."""
    gone: list[float] = []
    for y, text in rows:
        if not styles.furniture.is_furniture(number, y, text):
            break
        gone.append(y)
    return gone


def _opened(path: str) -> Any:
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        file = pypdfium2.PdfDocument(path)
        len(file)
        return file
    except pypdfium2.PdfiumError as error:
        if error.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise Unreadable("it is encrypted, and opens with a password only. Save it without one.") from error
        raise Unreadable("it is no PDF, or a broken one.") from error


def _has_picture(page: Any) -> bool:
    import pypdfium2.raw as pdfium

    return next(iter(page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3)), None) is not None
