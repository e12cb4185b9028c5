"""HTML, Markdown, text and Word files as blocks; what is no document is refused in a sentence."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ftlib.curate.documents import text
from ftlib.curate.documents.blocks import Block
from ftlib.curate.documents.formats import FORMATS, find_files, read_document
from ftlib.errors import DataError

HTML = """<html><head><title>T</title><script>var a = "no";</script></head><body>
<nav><a href="/">Home</a></nav><div class="sidebar">Around it</div>
<h1>Parcels<a href="#p">¶</a></h1><p>Small <b>ones</b> come<br>first.</p>
<ul><li>Lock it.<ul><li>Twice.</li></ul></li><li>Go.</li></ul>
<dl><dt>-v</dt><dd>Says more.</dd></dl>
<pre>if a:
    b()</pre>
<table><tr><th>A</th><th>B</th></tr><tr><td>1|2</td><td>3</td></tr></table>
<footer>Copyright</footer></body></html>"""


def blocks(path: Path, content: str) -> list[Block]:
    path.write_text(content)
    return list(read_document(path).blocks)


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        list(read_document(path).blocks)
    return str(raised.value)


def test_html(tmp_path: Path) -> None:
    assert blocks(tmp_path / "page.html", HTML) == [
        Block("heading", "Parcels", 3, 3, 1),
        Block("paragraph", "Small ones come first.", 3, 3),
        Block("list", "- Lock it.\n  - Twice.\n- Go.\n- -v: Says more.", 4, 5),
        Block("code", "if a:\n    b()", 6, 7),
        Block("table", "| A | B |\n| --- | --- |\n| 1\\|2 | 3 |", 8, 8),
    ]


def test_html_without_text_or_over_a_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html><body><nav>Home</nav><script>go()</script></body></html>")
    assert refusal(page) == "page.html: the page has no text of its own, only menus or scripts."
    page.write_text("<br>" * 500_001)
    assert refusal(page) == "page.html: it has more than 500,000 tags: it is no document."
    monkeypatch.setattr("ftlib.curate.documents.html.LARGEST", 1 << 20)
    assert refusal(page) == "page.html: it has 1 MiB, and at most 1 MiB of HTML are read."


def test_html_with_tags_within_each_other_without_end_is_read_or_refused(tmp_path: Path) -> None:
    page = tmp_path / "deep.html"
    page.write_text("<p>text</p>" + "<div><ul><li>" * 100_000 + "deep")
    assert next(read_document(page).blocks).text == "text"


def test_markdown(tmp_path: Path) -> None:
    content = (
        "# Parcels\nSmall ones\ncome first.\n\nPrices\n------\n| A | B |\n|---|---|\n| 1 | 2 |\n\n"
        "Then:\n- lock it\n  well\n- go\n\n```sh\n# no heading\n\nls\n```\n"
    )
    assert blocks(tmp_path / "notes.md", content) == [
        Block("heading", "Parcels", 1, 1, 1),
        Block("paragraph", "Small ones come first.", 2, 3),
        Block("heading", "Prices", 5, 6, 2),
        Block("table", "| A | B |\n|---|---|\n| 1 | 2 |", 7, 9),
        Block("paragraph", "Then:", 11, 11),
        Block("list", "- lock it well\n- go", 12, 14),
        Block("code", "# no heading\n\nls", 16, 19),
    ]


def test_text_and_its_places(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("One\nparagraph.\n\n\nAnother.\n", encoding="utf-16")
    document = read_document(tmp_path / "notes.txt")
    assert list(document.blocks) == [Block("paragraph", "One paragraph.", 1, 2), Block("paragraph", "Another.", 5, 5)]
    assert document.where(1, 2) == "notes.txt:1-2"


def test_what_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"fine\n\xff\xfe\xfa")
    assert refusal(notes) == "notes.txt: after line 0 this is no UTF-8 text. Save it as UTF-8."
    notes.write_bytes(b"fine\nzero \0 byte")
    assert refusal(notes) == "notes.txt:2: this is no text: it holds a zero byte."
    monkeypatch.setattr(text, "LONGEST_LINE", 1 << 20)
    notes.write_text("fine\n" + "x" * (1 << 20))
    assert refusal(notes) == "notes.txt:2: the line has more than 1 MiB: this is no text."


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(path: Path, body: str, before: str = "") -> Path:
    style = '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", f"{before}<w:document {W}><w:body>{body}</w:body></w:document>")
        file.writestr("word/styles.xml", f"<w:styles {W}>{style}</w:styles>")
    return path


def paragraph(said: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{said}</w:t></w:r></w:p>"


def test_docx(tmp_path: Path) -> None:
    item = '<w:numPr><w:ilvl w:val="0"/></w:numPr>'
    cells = "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in "AB")
    body = [
        paragraph("Parcels", '<w:pStyle w:val="berschrift1"/>'),
        paragraph("Small ones."),
        paragraph("Lock it.", item),
        paragraph("Go.", item),
        f"<w:tbl><w:tr>{cells}</w:tr><w:tr>{cells}</w:tr></w:tbl>",
    ]
    assert list(read_document(docx(tmp_path / "a.docx", "".join(body))).blocks) == [
        Block("heading", "Parcels", level=1),
        Block("paragraph", "Small ones."),
        Block("list", "- Lock it.\n- Go."),
        Block("table", "| A | B |\n| --- | --- |\n| A | B |"),
    ]


def test_a_word_file_that_is_none_or_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK nothing")
    assert refusal(tmp_path / "a.docx") == "a.docx: it is no DOCX file, or a broken one."
    entities = docx(tmp_path / "b.docx", paragraph("&a;"), '<!DOCTYPE a [<!ENTITY a "x">]>')
    assert refusal(entities) == "b.docx: its XML declares a document type, which no Office file does."
    monkeypatch.setattr("ftlib.curate.documents.archives.UNPACKED", 1 << 20)
    large = docx(tmp_path / "c.docx", paragraph("x" * (1 << 21)))
    assert refusal(large) == "c.docx: it unpacks to 2 MiB of XML, and at most 1 MiB are read."
    assert refusal(docx(tmp_path / "d.docx", "")) == "d.docx: it has no text."


def test_files_of_a_folder_and_of_a_pattern_are_named_by_where_they_are(tmp_path: Path) -> None:
    for name in ("b.pdf", "a/c.md", "a/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    suffixes = tuple(FORMATS)
    assert [name for name, _ in find_files(str(tmp_path), suffixes)] == ["a/c.md", "b.pdf"]
    assert [name for name, _ in find_files(f"{tmp_path}/**/*.md", suffixes)] == ["a/c.md"]
    assert find_files(f"{tmp_path}/b.pdf", suffixes) == [("b.pdf", tmp_path / "b.pdf")]


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    for pattern, why in {
        f"{tmp_path}": f"the folder {tmp_path} holds no .md or .pdf file.",
        f"{tmp_path}/*.pdf": f"no .md or .pdf file is named by '{tmp_path}/*.pdf'.",
        f"{tmp_path}/a.pdf": f"there is no such file or folder: '{tmp_path}/a.pdf'.",
    }.items():
        with pytest.raises(DataError) as raised:
            find_files(pattern, (".pdf", ".md"))
        assert str(raised.value) == why
    (tmp_path / "a.pfd").write_text("x")
    assert refusal(tmp_path / "a.pfd").endswith("and not in '.pfd'. Did you mean '.pdf'?")
