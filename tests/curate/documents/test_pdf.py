"""PDFs that cannot be read are refused in a sentence; odd ones are read."""

from __future__ import annotations

from pathlib import Path

import pypdf
import pytest

from ftlib.curate.documents.blocks import Block
from ftlib.curate.documents.formats import read_document
from ftlib.curate.documents.pdf import child
from ftlib.errors import DataError
from tests.curate.documents.handmade import PICTURE, line, pages, pdf, stream


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        list(read_document(path).blocks)
    return str(raised.value)


def test_a_scan_is_refused_and_scanned_pages_among_others_are_named(tmp_path: Path) -> None:
    scan = pages(tmp_path / "scan.pdf", [b"/X3 Do"], [PICTURE])
    assert refusal(scan) == (
        "scan.pdf: no page has text. Where its pages are scans, read them with OCR first (ocrmypdf)."
    )
    some = read_document(pages(tmp_path / "some.pdf", [line("Page one."), b"/X3 Do", b""], [PICTURE]))
    assert [block.text for block in some.blocks] == ["Page one."]
    assert some.notes == ("some.pdf: 1 of 3 pages are pictures without text, and are not read: 2.",)


def test_an_encrypted_file_is_refused(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(pages(tmp_path / "open.pdf", [line("Secret.")]))
    writer.encrypt("word", algorithm="RC4-128")
    writer.write(tmp_path / "closed.pdf")
    assert refusal(tmp_path / "closed.pdf") == (
        "closed.pdf: it is encrypted, and opens with a password only. Save it without one."
    )


def test_a_broken_or_an_empty_file_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.4\nnothing of the kind")
    assert refusal(broken) == "broken.pdf: it is no PDF, or a broken one."
    broken.write_bytes(b"")
    assert refusal(broken) == "broken.pdf is empty."
    assert refusal(tmp_path / "none.pdf") == "none.pdf: there is no such file."


def test_a_file_of_too_many_pages_is_refused(tmp_path: Path) -> None:
    kids = b"3 0 R " * 20_001
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
    tree = b"<< /Type /Pages /Kids [%s] /Count 20001 >>" % kids
    path = pdf(tmp_path / "long.pdf", [b"<< /Type /Catalog /Pages 2 0 R >>", tree, page])
    assert refusal(path) == "long.pdf: it has 20,001 pages, and at most 20,000 are read: split it."


def test_forms_that_draw_each_other_end_the_process_and_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "PAGE_SECONDS", 0)

    def form(number: int) -> bytes:
        box = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X%d %d 0 R >> >>"
        return stream(b"/X%d Do " % (number + 1) * 40, box % (number + 1, number + 1))

    forms = [form(number) for number in range(3, 12)]
    path = pages(tmp_path / "bomb.pdf", [b"/X3 Do"], [*forms, form(3)])
    assert refusal(path) == "bomb.pdf: one of its pages takes more than 0 seconds of a processor: it is no document."


def test_a_page_with_too_many_characters_is_refused(tmp_path: Path) -> None:
    path = pages(tmp_path / "dense.pdf", [b"".join(line(f"{n:05}" * 20, y=n / 4) for n in range(2_001))])
    assert refusal(path) == "dense.pdf: page 1 has more characters than a page can: it is no document."


def test_a_turned_page_is_read_upright_and_a_stamp_on_its_margin_is_not(tmp_path: Path) -> None:
    turned = b"BT /F1 10 Tf 0 1 -1 0 %d 72 Tm (%s) Tj ET\n"
    content = turned % (100, b"First line of a turned page, and") + turned % (112, b"the second one.") + line("STAMP")
    assert read(pages(tmp_path / "turned.pdf", [content])) == ["First line of a turned page, and the second one."]


def test_contents_with_page_numbers_are_left_out(tmp_path: Path) -> None:
    contents = [line(f"{n} Chapter {' .' * 20} {n}", y=700 - 15 * n) for n in range(1, 6)]
    assert read(pages(tmp_path / "toc.pdf", [b"".join(contents), line("Chapter one.")])) == ["Chapter one."]


def test_numbers_of_pages_are_left_out_and_other_numbers_stay(tmp_path: Path) -> None:
    contents = [line(f"Value {n * n} of the row.") + line("1984", y=400) + line(str(n + 3), y=40) for n in range(5)]
    text = "\n".join(read(pages(tmp_path / "numbers.pdf", contents)))
    assert text.count("1984") == 5
    assert "\n3" not in text


def test_the_text_of_columns_that_a_title_spans(tmp_path: Path) -> None:
    rows = [line(f"left column row {n} of text", 72, 650 - 12 * n) for n in range(8)]
    rows += [line(f"right column row {n} of text", 330, 650 - 12 * n) for n in range(8)]
    title = line("A title that spans the two columns of the page", 90, 700, 20)
    [first, *rest] = list(read_document(pages(tmp_path / "columns.pdf", [title + b"".join(rows)])).blocks)
    assert (first.kind, first.level) == ("heading", 1)
    text = " ".join(block.text for block in rest)
    assert text == " ".join(f"{side} column row {n} of text" for side in ("left", "right") for n in range(8))


def test_cells_under_each_other_are_a_table_without_rules(tmp_path: Path) -> None:
    names = ["apple", "pear", "plum", "quince"]
    rows = [
        line(name, 72, 700 - 12 * n) + line(str(n), 200, 700 - 12 * n) + line("kg", 300, 700 - 12 * n)
        for n, name in enumerate(names)
    ]
    [table] = list(read_document(pages(tmp_path / "table.pdf", [b"".join(rows)])).blocks)
    body = "\n".join(f"| {name} | {n} | kg |" for n, name in list(enumerate(names))[1:])
    assert table == Block("table", f"| apple | 0 | kg |\n| --- | --- | --- |\n{body}", 1, 1)


def read(path: Path) -> list[str]:
    return [block.text for block in read_document(path).blocks]


def test_a_character_beyond_the_first_plane_is_whole_and_a_formula_has_plain_letters(tmp_path: Path) -> None:
    to_unicode = stream(
        b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange "
        b"2 beginbfchar <41> <D83DDE00> <42> <D835DC65> endbfchar endcmap"
    )
    font = b"/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 5 0 R >> >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 /MediaBox [0 0 612 792] /Resources << %s >> >>" % font,
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>",
        stream(line("A = B")),
        to_unicode,
    ]
    assert read(pdf(tmp_path / "plane.pdf", objects)) == ["\U0001f600 = x"]
