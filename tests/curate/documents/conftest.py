"""A real PDF that Chromium prints, once for all tests: two columns, running heads, page numbers, a table, code."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib.curate.documents.blocks import Block
from ftlib.curate.documents.formats import read_document
from tests.report.browser import chromium

SENTENCE = "Each clerk counts the parcels of a morning before the van comes, and writes the number down."
PARTED = "The ware&shy;house of the depart&shy;ment is well-known for its tem&shy;per&shy;a&shy;ture control. " * 12
PAGE = f"""<!doctype html><html lang="en"><style>
body {{ font: 10pt serif }} .two {{ columns: 2; column-gap: 24pt; text-align: justify; hyphens: manual }}
h1 {{ column-span: all; font-size: 20pt }} h2 {{ font-size: 14pt }} pre {{ font: 9pt monospace }}
table {{ border-collapse: collapse }} table, pre {{ break-inside: avoid }}
td, th {{ border: 1px solid; padding: 3pt }}
</style><body><div class="two"><h1>Handbook of the depot</h1>
<h2>The day</h2><p>{" ".join([SENTENCE] * 30)}</p><p style="width: 37mm">{PARTED}</p>
<h2>The office</h2><p>The office of a difficult flight offers fine coffee.</p>
<p>The warehouse of the department keeps its temperature.</p>
<table><tr><th>Parcel</th><th>Price</th></tr><tr><td>Small, up to one
kilogram</td><td>4.20</td></tr><tr><td>Large</td><td>9.80</td></tr></table>
<pre>for parcel in van:
    weigh(parcel)

    if heavy:
        refuse()</pre>
<ul><li>Lock the door.</li><li>Take the keys of the second van along.</li></ul>
<p>{" ".join([SENTENCE] * 90)}</p><h2>The end</h2><p>Nothing follows.</p></div></body></html>"""
FOOT = '<div style="font-size:8pt;width:100%;text-align:center"><span class="pageNumber"></span></div>'
HEAD = '<div style="font-size:8pt;width:100%;text-align:center">Confidential handbook</div>'


@pytest.fixture(scope="session")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skips its tests where there is no browser."""
    path = tmp_path_factory.mktemp("printed") / "handbook.pdf"
    with chromium() as browser:
        page = browser.new_page()
        page.set_content(PAGE)
        margin = {"top": "2cm", "bottom": "2cm", "left": "2cm", "right": "2cm"}
        page.pdf(path=path, display_header_footer=True, header_template=HEAD, footer_template=FOOT, margin=margin)
    return path


@pytest.fixture(scope="session")
def blocks(printed: Path) -> list[Block]:
    return list(read_document(printed).blocks)
