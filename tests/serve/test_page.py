"""The page at `/`, in a real headless browser over the real endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.report.browser import chromium

from .browser import BROWSERS
from .conftest import KEY, World

PROMPT = "the quick brown"
EVIL = "<img src=x onerror=\"document.title='owned'\">"
SIDES = ("left", "right")


@pytest.fixture(scope="module", params=BROWSERS)
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Both of them: a newer one warns of what an older one lets pass."""
    with chromium([request.param]) as launched:
        yield launched


@pytest.fixture
def page(browser: Browser, world: World) -> Iterator[Page]:
    """The page with nothing typed yet. Its console must have stayed silent, but for answers that a test asked for."""
    said: list[str] = []
    with browser.new_context() as context:
        opened = context.new_page()
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.goto(world.url)
        yield opened
    assert [line for line in said if not re.search("status of (401|404|400)", line)] == []


@pytest.fixture
def opened(page: Page, world: World) -> Page:
    """The page once the key is there and the names are listed."""
    page.get_by_label("API key").fill(KEY)
    expect(page.locator("#names tr")).to_have_count(len(world.served))
    return page


def choice(page: Page, name: str) -> Locator:
    return page.get_by_role("combobox", name=name)


def ask(page: Page, left: str, right: str, kind: str = "text", prompt: str = PROMPT, tokens: int = 24) -> None:
    choice(page, "Left").select_option(left)
    choice(page, "Right").select_option(right)
    choice(page, "As").select_option(kind)
    page.get_by_label("Max tokens").fill(str(tokens))
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()


def texts(page: Page) -> list[str]:
    """Both answers, once both are whole."""
    for side in SIDES:
        expect(page.locator(f"#note-{side}")).to_have_text(re.compile("ended by length"))
    return [page.locator(f"#text-{side}").evaluate("element => element.textContent") for side in SIDES]


def test_the_page_lists_names_and_versions(opened: Page, world: World) -> None:
    rows = [row.split("\t")[:2] for row in opened.locator("#names").inner_text().strip().split("\n")]
    assert dict(rows) == {name: version.id for name, version in world.served.items()}
    assert choice(opened, "Right").input_value() == f"{choice(opened, 'Left').input_value()}@base"


def test_two_adapters_answer_side_by_side(opened: Page, client: openai.OpenAI) -> None:
    ask(opened, "support", "bare")
    plain = {"prompt": PROMPT, "temperature": 0, "max_tokens": 24}
    assert texts(opened) == [
        client.completions.create(model=name, **plain).choices[0].text for name in ("support", "bare")
    ]
    live = opened.locator("#live").get_by_role("cell", name="support@2", exact=True)
    expect(live).to_have_count(1)
    chat = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 9}
    ask(opened, "support@1", "full.model", "chat", tokens=9)
    expect(opened.locator("#title-left")).to_have_text("support@1")
    assert texts(opened) == [
        client.chat.completions.create(model=name, **chat).choices[0].message.content
        for name in ("support@1", "full.model")
    ]


def test_a_version_is_compared_with_its_base(opened: Page, client: openai.OpenAI) -> None:
    ask(opened, "support", "support@base")
    plain = {"prompt": PROMPT, "temperature": 0, "max_tokens": 24}
    answers = [client.completions.create(model=name, **plain).choices[0].text for name in ("support", "support@base")]
    assert texts(opened) == answers
    assert answers[0] != answers[1]
    pace = r"support@2@base: 24 tokens in [\d.]+ s \([\d.]+ a second, the first after [\d.]+ s\), ended by length\."
    expect(opened.locator("#note-right")).to_have_text(re.compile(pace))


def test_the_answers_come_in_pieces_and_stop_ends_them(opened: Page) -> None:
    ask(opened, "support", "support@1", tokens=3900)
    text = opened.locator("#text-left")
    expect(text).not_to_be_empty()
    expect(text).not_to_have_text(text.inner_text())  # not wait_for_function: the page's policy forbids it to evaluate
    opened.get_by_role("button", name="Stop").click()
    for side in SIDES:
        expect(opened.locator(f"#note-{side}")).to_have_text("Stopped.")
    expect(opened.get_by_role("button", name="Send")).to_be_enabled()
    expect(opened.get_by_role("button", name="Stop")).to_be_disabled()


def test_a_wrong_key_is_told_and_the_right_one_kept_for_the_tab_only(page: Page, world: World) -> None:
    sentence = "The API key is missing or wrong: send it as 'Authorization: Bearer KEY'."
    expect(page.locator("#state")).to_have_text(sentence)
    page.get_by_label("API key").fill("nope")
    expect(page.locator("#state")).to_have_text(sentence)
    page.get_by_label("API key").fill("größe")
    expect(page.locator("#state")).to_have_text("A key has printable ASCII characters only, and no space.")
    page.get_by_label("API key").fill(KEY)
    expect(page.locator("#names tr")).to_have_count(len(world.served))
    expect(page.locator("#state")).to_be_empty()
    page.reload()
    expect(page.locator("#names tr")).to_have_count(len(world.served))
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]


def test_a_refusal_is_shown_in_its_sentence(opened: Page) -> None:
    ask(opened, "bare", "support", "chat", prompt="x")
    expect(opened.locator("#note-left")).to_have_text(re.compile("bare@1 has no chat template"))
    expect(opened.locator("#note-right")).to_have_text(re.compile("support@2: 24 tokens"))


def test_what_the_endpoint_says_is_never_markup(opened: Page) -> None:
    """The real endpoint repeats a wrong name; one that lies has markup in its names and its answers too."""
    opened.evaluate("name => document.getElementById('model-left').append(new Option(name))", EVIL)
    ask(opened, EVIL, "support")
    expect(opened.locator("#note-left")).to_contain_text(EVIL[:40])
    opened.route("**/v1/models", lambda route: _tell(route, {"data": [{"id": EVIL, "root": EVIL, "canary": EVIL}]}))
    opened.route("**/v1/live", lambda route: _tell(route, {"window": 60, "versions": {EVIL: {"requests": EVIL}}}))
    opened.route("**/v1/completions", lambda route: route.fulfill(content_type="text/event-stream", body=_events(EVIL)))
    expect(opened.locator("#names td").first).to_have_text(EVIL)
    ask(opened, EVIL, EVIL)
    expect(opened.locator("#text-right")).to_have_text(EVIL)
    assert opened.locator("img").count() == 0
    assert opened.title() == "ftlib endpoint"


def test_a_canary_has_its_row_and_can_be_chosen(opened: Page) -> None:
    told = {"id": "support", "root": "support@2", "canary": "support@3", "canary_share": 0.05}
    opened.route("**/v1/models", lambda route: _tell(route, {"data": [told]}))
    expect(opened.locator("#names tr")).to_have_count(1)
    assert opened.locator("#names").inner_text().split() == ["support", "support@2", "support@3", "5", "%"]
    assert choice(opened, "Left").locator("option").all_text_contents() == ["support", "support@2", "support@3"]


def _tell(route: Route, value: object) -> None:
    route.fulfill(json=value)


def _events(text: str) -> str:
    event = {"system_fingerprint": text, "choices": [{"text": text, "finish_reason": text}]}
    return f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"


def test_an_answer_that_breaks_off_is_told(opened: Page) -> None:
    cut = _events("half an").removesuffix("data: [DONE]\n\n")
    opened.route("**/v1/completions", lambda route: route.fulfill(content_type="text/event-stream", body=cut))
    ask(opened, "support", "bare")
    expect(opened.locator("#note-left")).to_have_text("The answer broke off.")
    expect(opened.locator("#text-left")).to_have_text("half an")


def test_the_page_fits_a_phone_and_every_field_has_a_label(opened: Page, tmp_path: Path) -> None:
    opened.set_viewport_size({"width": 360, "height": 740})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    left, right = (opened.locator(f"#text-{side}").bounding_box() for side in SIDES)
    assert left["x"] == right["x"]  # one column
    assert left["y"] < right["y"]
    opened.screenshot(path=tmp_path / "phone.png", full_page=True)
    fields = opened.locator("input, select, textarea, button")
    assert all(
        fields.nth(n).evaluate("field => Boolean(field.labels?.length || field.textContent)")
        for n in range(fields.count())
    )


def test_the_page_may_do_nothing_but_ask_its_endpoint(world: World) -> None:
    answer = httpx.get(world.url)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", answer.text)


def test_an_injected_script_does_not_run(browser: Browser, world: World) -> None:
    """Even if markup got in: the policy lets no script run but the page's own."""
    with browser.new_page() as opened:
        opened.goto(world.url)
        with opened.expect_console_message(lambda message: "Content Security Policy" in message.text):
            opened.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", EVIL)
        assert opened.title() == "ftlib endpoint"
