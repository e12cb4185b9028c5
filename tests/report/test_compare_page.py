"""The page of `ftlib compare` in a real headless browser: blind, by keys, gone on with, and for this machine alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from ftlib.errors import InputError
from ftlib.evaluation.pairs import Pair, Pairs
from ftlib.evaluation.votes import Booth, Tally
from ftlib.report.compare_page import judged
from tests.conftest import ftlib, write_jsonl
from tests.report.browser import chromium

EVIL = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def booth(tmp_path: Path) -> Booth:
    made = [Pair(({"role": "user", "content": f"question {n}"},), f"aye {n}", f"bee {n}") for n in range(4)]
    return Booth(Pairs("the-base-model", "the-tuned-model", tuple(made)), tmp_path / "votes.jsonl")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Its console must stay silent."""
    said: list[str] = []
    with browser.new_context(viewport={"width": 360, "height": 740}) as context:
        opened = context.new_page()
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        yield opened
    assert said == []


def side_of(page: Page, begins: str) -> str:
    return "left" if page.locator("#left").inner_text().startswith(begins) else "right"


def test_votes_by_keys_are_kept_and_gone_on_with(page: Page, booth: Booth) -> None:
    with judged(booth) as url:
        page.goto(url)
        page.get_by_label("Your name").fill("ana")
        page.keyboard.press("Enter")
        expect(page.locator("#progress")).to_have_text("1 of 4")
        page.keyboard.press("ArrowLeft" if side_of(page, "bee") == "left" else "ArrowRight")
        expect(page.locator("#progress")).to_have_text("2 of 4")
        page.keyboard.press("a" if side_of(page, "bee") == "left" else "l")
        expect(page.locator("#progress")).to_have_text("3 of 4")
        page.reload()
        expect(page.locator("#progress")).to_have_text("3 of 4")
        page.get_by_role("button", name="Left" if side_of(page, "aye") == "left" else "Right").click()
        expect(page.locator("#progress")).to_have_text("4 of 4")
        page.keyboard.press("Space")  # a tie, though a button was clicked before
        expect(page.locator("#over")).to_be_visible()
        assert booth.summary().overall == Tally(1, 2, 1)
        page.keyboard.press("u")
        expect(page.locator("#progress")).to_have_text("4 of 4")
        page.get_by_role("button", name=side_of(page, "bee").capitalize()).click()
        expect(page.locator("#over")).to_be_visible()
    assert booth.summary().overall == Tally(1, 3, 0)


def test_nothing_that_the_page_gets_says_whose_an_answer_is(page: Page, booth: Booth) -> None:
    heard: list[str] = []
    page.on("response", lambda response: heard.append(response.text()) if response.ok else None)
    with judged(booth, "ben") as url:
        page.goto(url)
        expect(page.locator("#progress")).to_have_text("1 of 4")
        page.keyboard.press("Space")
        expect(page.locator("#progress")).to_have_text("2 of 4")
        heard.append(page.content())
    assert len(heard) == 5
    assert not [text for text in heard if re.search("the-base-model|the-tuned-model", text)]


def test_what_models_write_stays_text_and_the_page_fits_a_phone(page: Page, tmp_path: Path) -> None:
    pair = Pair(({"role": EVIL, "content": EVIL},), EVIL, f"{EVIL} {'x' * 500}")
    with judged(Booth(Pairs("a", "b", (pair,)), tmp_path / "votes.jsonl"), EVIL) as url:
        page.goto(url)
        expect(page.locator("#prompt pre")).to_have_text(EVIL)
        expect(page.locator(f"#{side_of(page, EVIL)}")).to_contain_text(EVIL)
        assert page.locator("img").count() == 0
        assert page.title() == "Which answer is better?"
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        left, right = (page.locator(f"#{side}").bounding_box() for side in ("left", "right"))
        assert left is not None
        assert right is not None
        assert left["y"] < right["y"]  # one column


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: Any, page: Page, booth: Booth) -> None:
    page.emulate_media(color_scheme=scheme)
    with judged(booth) as url:
        page.goto(url)
        expect(page.get_by_label("Your name")).to_be_visible()
        accessible(page)
        page.get_by_label("Your name").fill("ana")
        page.keyboard.press("Enter")
        expect(page.locator("#progress")).to_have_text("1 of 4")
        accessible(page)


def accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_only_its_own_page_with_its_token_is_answered(booth: Booth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftlib.report.door.PAUSE", 0)
    with judged(booth, "ana") as url, entered(url) as client, httpx.Client() as stranger:
        root, port = url.partition("?")[0], httpx.URL(url).port
        policy = client.get(root).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert client.post("/api/begin", json={}).json() == {"voter": "ana"}
        assert "access-control-allow-origin" not in client.post("/api/begin", json={}).headers

        def status(where: str, content: bytes = b"{}", **headers: str) -> int:
            named = {"content-type": "application/json", **{name.replace("_", "-"): it for name, it in headers.items()}}
            return client.post(where, content=content, headers=named).status_code

        assert stranger.get(f"{root}?token=wrong").status_code == 401
        assert stranger.get(root).status_code == 401
        assert stranger.post(f"{root}api/begin", json={}, headers={"origin": root.rstrip("/")}).status_code == 401
        assert status("/api/begin", host=f"evil.example:{port}") == 403
        assert status("/api/begin", origin="http://evil.example") == 403
        assert status("/api/begin", content_type="text/plain") == 415
        assert status("/api/begin", b"[]") == 400
        assert status("/api/begin", b"{") == 400
        assert status("/api/begin", b" " * 70_000) == 413
        assert status("/api/vote", b'{"voter": "ana", "pair": "x", "side": "left"}') == 400
        assert status("/api/vote", b'{"voter": ["ana"]}') == 400
        assert status("/api/other") == 404
        with pytest.raises(InputError, match=f"--port {port} cannot be used"), judged(booth, port=port):
            pass
    assert not booth.summary().voters


@contextmanager
def entered(url: str) -> Iterator[httpx.Client]:
    """Somebody who has opened the URL."""
    root = url.partition("?")[0].rstrip("/")
    with httpx.Client(base_url=root, headers={"origin": root}) as client:
        client.get(url)
        yield client


def test_the_command_ends_with_the_sum(tmp_path: Path) -> None:
    files = [
        write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": f"q{n}", "answer": f"{name}{n}"} for n in range(3)])
        for name in ("old", "new")
    ]
    out = tmp_path / "votes.jsonl"
    words = ["compare", *map(str, files), "--no-browser", "--voter", "ana", "--out", str(out)]
    command = [sys.executable, "-m", "ftlib.cli", *words]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert running.stdout is not None
    url = re.search(r"judge 3 pairs at (\S+)", running.stdout.readline())
    assert url is not None
    with entered(url[1]) as client:
        shown = client.post("/api/next", json={"voter": "ana"}).json()
        side = "left" if shown["left"].startswith("new") else "right"
        client.post("/api/vote", json={"voter": "ana", "pair": shown["pair"], "side": side})
    running.send_signal(signal.SIGTERM)  # a job of a shell may ignore Ctrl-C
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0
    assert "new against old: wins 100.0 % (20.7 to 100.0) of those decided: 1 win, 0 losses, 0 ties in 1 pair" in said
    assert json.loads(out.read_text())["choice"] == "b"


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "answer": "y"}])
    for words, says in (
        ([file], "give the other one too"),
        ([file, file, "--task", "t"], "--contenders and --task belong to a run"),
        ([file, file, "--limit", "3"], "--limit belongs to models and a FILE"),
        (["a", "b", file, "--task", "t"], "--task belongs to a run alone"),
        (["a", "a", file], "a is given twice"),
        ([file, file], "nothing to judge"),
    ):
        status, output = ftlib("compare", *words, "--out", tmp_path / "votes.jsonl", "--no-browser")
        assert (status, says in output) == (2, True), output
