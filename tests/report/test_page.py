"""`report.html` in a real headless browser, from a file: silent, alone, accessible, and deaf to what a run says."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from ftlib.driver.execute import _report
from ftlib.driver.listener import Listener
from ftlib.errors import FtlibError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.report.page import write_report
from ftlib.report.template import script_json
from ftlib.run import layout
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard
from tests.conftest import ftlib
from tests.report.browser import chromium, opened
from tests.report.runs import evaluate, make_run

CODE = "document.title='owned'"
EVIL = f'</script><script>{CODE}</script><img src=https://evil.test/x onerror="{CODE}">\u2028'
LINK = '<a href="https://evil">r</a>'  # Plotly makes a link of it, unless it is escaped
SLICES = ["slice-1", "slice-0", "slice-2"]  # the most important one first
CHARTS = ["objective", "train-loss", "parallel", "importances", *SLICES, "pareto", "stays"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Evaluated. Read it, do not change it."""
    made = make_run(tmp_path_factory.mktemp("runs"))
    rows = leaderboard(made).rows
    evaluate(made, rows[0].trial, rows[1].trial, rows=150)
    return made


@pytest.fixture(scope="module")
def page(browser: Browser, run: Run) -> Iterator[Page]:
    """One page for the tests that look at it: to open it is what takes time."""
    with opened(browser, write_report(run), permissions=["clipboard-read", "clipboard-write"]) as page:
        yield page


def see_all(page: Page) -> None:
    """Scrolls to each chart, and waits until it is drawn."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        expect(chart.locator("svg.main-svg").first).to_be_attached()


def test_the_first_screen_has_verdict_leaderboard_and_command(page: Page, run: Run) -> None:
    best, tie = (row.trial for row in leaderboard(run).rows[:2])
    expect(page.locator(".verdict")).to_contain_text("83.5 % (72.1 to 91.0), few_shot 48.3 %, p < 0.001")
    expect(page.locator("#leaderboard tr.best")).to_contain_text(best)
    expect(page.locator("#leaderboard tr", has_text="within chance of the best")).to_contain_text(tie)
    expect(page.locator("#promotion")).to_have_text(f"ftlib promote {run.path} --as tickets")
    expect(page.locator(".bar.winner").first).to_contain_text("72.0 % to 91.0 %")


def test_the_command_can_be_copied(page: Page) -> None:
    page.locator("#promote button").click()
    expect(page.locator("#promote button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#promotion").inner_text()


def test_tables_and_answers_come_in_pages_and_can_be_filtered(page: Page) -> None:
    rows = page.locator("#leaderboard tbody tr:visible")
    expect(rows).to_have_count(10)
    page.locator("#leaderboard").get_by_role("button", name="Next").press("Enter")
    expect(rows).to_have_count(3)
    expect(page.locator("#task-1 + .lead")).to_contain_text("100 rows are on this page; answers.jsonl has the other 50")
    page.locator("[data-filters=rows-1]").get_by_role("button", name="Got worse").click()
    shown = page.locator("#rows-1 > li:visible")
    assert set(shown.evaluate_all("all => all.map(one => one.dataset.change)")) == {"worse"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_and_axe_finds_nothing(scheme: Any, page: Page) -> None:
    page.emulate_media(color_scheme=scheme)
    see_all(page)
    assert page.locator(".chart").evaluate_all("all => all.map(one => one.id.slice(6))") == CHARTS
    page.locator("#timeline details").evaluate("fold => { fold.open = true; }")
    only = {"runOnly": ["color-contrast"]} if scheme == "dark" else None
    found = Axe().run(page, {"exclude": [[".main-svg"]]}, only)  # of a chart its label is read, and the table below it
    assert found.violations_count == 0, found.generate_report()


def test_it_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    see_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_what_a_run_says_stays_text(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path, 6, name=f"name {EVIL}")
    evaluate(run, "000", "001", rows=12, evil=EVIL)
    for trial in run.trials():
        write_json(trial.path / layout.PARAMS, {LINK: trial.params["adapter.r"], EVIL: f"{EVIL}{trial.id[-1]}"})
        write_json(trial.path / layout.PLACE, {"node": "node1", "ip": LINK, "pid": 1})
    resolved = run.resolved
    resolved["versions"][EVIL] = EVIL
    resolved["objective"] = ["eval_loss", "min"]
    write_json(run.path / layout.RESOLVED, resolved)
    (run.path / layout.EXPERIMENT).write_text(f"name: x\n# override: {EVIL}\n")
    with opened(browser, write_report(run)) as page:
        see_all(page)
        assert page.title().startswith("name </script>")
        assert page.locator("img, a[href*=evil], script").count() == 3  # the charts' numbers, page.js and Plotly
        expect(page.locator(".questions dd").nth(1)).to_contain_text("<script>document.title='owned'</script>")
        expect(page.locator("#chart-stays")).to_contain_text(f"machine {LINK}")
        assert page.locator("svg a").count() == 0


def test_json_cannot_end_its_script() -> None:
    told = script_json({"a": "</script>\u2028<!--&"})
    assert json.loads(told) == {"a": "</script>\u2028<!--&"}
    assert re.search(r"[<>&\u2028]", told) is None


def test_a_thousand_trials_are_below_ten_megabytes(browser: Browser, tmp_path: Path) -> None:
    run = make_run(tmp_path, 1000)
    evaluate(run, "000", "001", rows=500)
    file = write_report(run)
    assert file.stat().st_size < 10 * 10**6
    began = time.monotonic()
    with opened(browser, file) as page:
        expect(page.locator("#leaderboard tbody tr:visible")).to_have_count(10)
        print(f"a report of 1,000 trials opens in {time.monotonic() - began:.1f} s")
        page.locator("#chart-objective").scroll_into_view_if_needed()
        expect(page.locator("#chart-objective .legendtext").first).to_have_text("949 other trials")


def test_a_run_without_anything_to_compare_has_no_empty_section(tmp_path: Path) -> None:
    text = write_report(Run.create(tmp_path, "x", "", {"objective": ["eval_loss", "min"]})).read_text(encoding="utf-8")
    assert re.findall(r"<h2.*>(.*)</h2>", text) == ["Verdict", "Leaderboard", "Do it again"]
    assert "No trial has an evaluation yet." in text
    assert 'class="chart"' not in text


def test_without_an_evaluation_the_leaderboard_is_the_verdict(tmp_path: Path) -> None:
    run = make_run(tmp_path, 3)
    best = leaderboard(run).rows[0].trial
    assert f"Trial {best} is the best: eval_loss " in write_report(run).read_text(encoding="utf-8")


def test_the_command_writes_it_where_it_is_asked_to(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "x.html"
    assert ftlib("report", run.path, "--out", out) == (0, f"{out}\n")
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("wrong", [{"ties": "001"}, {"tasks": {"a": {"metrics": {"x": "most"}}}}, {"verdict": 3}])
def test_a_damaged_evaluation_is_named_and_ends_no_sweep(wrong: dict[str, Any], tmp_path: Path) -> None:
    run = make_run(tmp_path, 2)
    write_json(run.path / layout.EVALUATION, wrong)
    with pytest.raises(FtlibError, match=r"evaluation\.json is damaged"):
        write_report(run)
    listener = Recorder()
    _report(run, listener)
    (warning,) = listener.warnings
    assert warning.startswith("the report is not written: ")
    assert read_json(run.path / layout.EVALUATION) == wrong


class Recorder(Listener):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
