"""The page of `ftlib data report` in a real headless browser: silent, alone, accessible, and deaf to what rows say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from ftlib.driver.inspect_data import inspected
from ftlib.report.data_page import write_data_report
from tests.report.browser import chromium, opened

CODE = "document.title='owned'"
EVIL = f'</script><script>{CODE}</script><img src=https://evil.test/x onerror="{CODE}">\u2028'
LINK = '<a href="https://evil">open</a>'  # Plotly makes a link of it, unless it is escaped
TEXT = "The parcel number {} came late, and the box was open when I took it in; please send me another one."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled rows with a fault of each kind, and an evaluation of which some stand there."""
    made = tmp_path_factory.mktemp("data")
    texts = [TEXT.format(number * 7) + " Thank you" * (number % 9) for number in range(40)]
    rows = [{"text": text, "label": ["late", "Late", LINK][at % 3]} for at, text in enumerate(texts)]
    rows += [rows[0], {**rows[0], "label": "other"}, {"text": TEXT.replace("late", "soon").format(0), "label": "late"}]
    rows += [{"text": f"Write to ana@example.com: {EVIL}", "label": "late"}, {"text": "", "label": "late"}]
    (made / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[3:6]))
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    found = inspected(str(folder / "rows.jsonl"), str(folder / "test.jsonl"), [str(folder / "test.jsonl")])
    beside = write_data_report(found, folder / "rows-report.html")
    assert json.loads(beside.read_text())["rows"] == 44
    with chromium() as browser, opened(browser, folder / "rows-report.html") as page:
        for chart in page.locator(".chart").all():
            chart.scroll_into_view_if_needed()
            expect(chart.locator("svg.main-svg").first).to_be_attached()
        yield page


def test_every_finding_is_told_and_leads_to_its_rows(page: Page) -> None:
    kinds = [line.inner_text() for line in page.locator(".notes li").all()]
    for what in (
        *("labels that differ in case", "cannot be used", "'text' is empty in 1 row", "repeats another but", "nearly"),
        *("the same text has different labels", "3 of 3 rows of test.jsonl stand", "13 words in a row", "email"),
    ):
        assert any(what in kind for kind in kinds), what
    for link in page.locator(".notes a").all():
        assert page.locator(str(link.get_attribute("href"))).count() == 1
    assert page.locator(".chart").evaluate_all("all => all.map(one => one.id)") == [
        "chart-lengths", "chart-languages", "chart-labels",
    ]  # fmt: skip


def test_personal_data_and_what_rows_say_is_not_on_the_page(page: Page, folder: Path) -> None:
    assert "ana@example.com" not in (folder / "rows-report.html").read_text()
    assert "ana@example.com" not in (folder / "rows-report.json").read_text()
    assert page.title() == "rows.jsonl: data report"
    assert page.locator("img, script").count() == 3  # the charts' numbers, page.js and Plotly
    assert page.locator("svg a").count() == 0


def test_axe_finds_nothing_and_it_fits_a_phone(page: Page) -> None:
    found = Axe().run(page, {"exclude": [[".main-svg"]]})
    assert found.violations_count == 0, found.generate_report()
    page.emulate_media(color_scheme="dark")
    found = Axe().run(page, {"exclude": [[".main-svg"]]}, {"runOnly": ["color-contrast"]})
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
