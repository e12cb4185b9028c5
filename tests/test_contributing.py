"""What CONTRIBUTING.md tells: the places that exist, the complete list of those that an addition touches."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
LISTS = re.findall(r"<!-- places: (\w+), example: (\w+) -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)


def test_there_is_a_list_for_each_thing_that_is_added() -> None:
    assert [kind for kind, _, _ in LISTS] == ["method", "adapter", "backend", "step", "scheduler"]


@pytest.mark.parametrize(("kind", "example", "told"), LISTS, ids=[kind for kind, _, _ in LISTS])
def test_the_list_of_places_is_complete(kind: str, example: str, told: str) -> None:
    """Every file of ftlib that says the example's name is on the list, and every file on the list is there."""
    named = set(re.findall(r"`([\w/.]+\.(?:py|yaml|md))`", told))
    assert [path for path in named if not (ROOT / path).exists()] == []
    word = re.compile(rf"(?<![a-z]){example}(?![a-z])", re.IGNORECASE)
    sources = [file for file in (ROOT / "ftlib").rglob("*.py") if not {"foreign", "convert"} & set(file.parts)]
    saying = {str(file.relative_to(ROOT)) for file in sources if word.search(file.read_text())}
    assert saying - named == set()


def test_every_path_on_the_page_is_there() -> None:
    for path in re.findall(r"`((?:[\w.]+/)+[\w.]*)`", PAGE):
        assert any((ROOT / root / path).exists() for root in ("", "ftlib")), path


def test_every_room_is_on_the_page_in_the_order_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"ftlib\.(\w+)", layer) for layer in contracts[0]["layers"]]
    rooms = {room for layer in layers for room in layer} - {"errors", "api"}
    told = re.findall(r"^\| `(\w+)/`", PAGE, re.MULTILINE)
    assert set(told) == rooms
    heights = [next(height for height, layer in enumerate(layers) if room in layer) for room in told]
    assert heights == sorted(heights)
