"""One headless Chromium for the tests of pages from files: the one on the PATH, or the one that npm carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.serve.browser import BROWSERS, NoBrowser


@contextmanager
def chromium(names: Iterable[str] = BROWSERS) -> Iterator[Browser]:
    """The first of these browsers that starts. Skips the test where none does."""
    why = "no browser"
    with sync_playwright() as playwright:
        for name in names:
            try:
                path, environment = BROWSERS[name]()
                options = ["--no-sandbox", "--disable-gpu"]
                launched = playwright.chromium.launch(executable_path=path, env=environment, args=options)
            except (NoBrowser, Error) as error:
                why = str(error).splitlines()[0]
                continue
            yield launched
            launched.close()
            return
    pytest.skip(why)


@contextmanager
def opened(browser: Browser, file: Path, **context: object) -> Iterator[Page]:
    """The page of a file. Its console must stay silent, and it must ask for nothing but itself."""
    said: list[str] = []
    asked: list[str] = []
    with browser.new_context(**context) as made:  # type: ignore[arg-type]
        page = made.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
