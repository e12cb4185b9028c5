"""The page of all keys says what the code says, and leaves no key out."""

import re
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment, reference
from ftlib.config.messages import dotted_paths
from ftlib.config.schema import descriptions, sections
from ftlib.config.words import type_in_words, value_in_words
from tests.conftest import ftlib

DOCS = Path(__file__).parents[2] / "docs" / "keys.md"
PAGE = reference.markdown()


def test_the_page_is_what_the_code_says() -> None:
    assert DOCS.read_text(encoding="utf-8") == PAGE, "run: ftlib schema --markdown > docs/keys.md"


def test_schema_prints_it() -> None:
    assert ftlib("schema", "--markdown") == (0, PAGE)


def test_every_key_has_a_description() -> None:
    for section in sections(Experiment):
        said = descriptions(section)
        short = [name for name in section.model_fields if len(said.get(name, "")) < 10]
        assert not short, f"{section.__name__}: write under {short} what they do"


def test_every_key_is_on_the_page() -> None:
    printed = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, re.MULTILINE))
    shapes = ("choices", "min", "max", "log", "q", "ratio_of", "variants", "auto")
    assert printed == {*dotted_paths(Experiment), *(f"sweep.space.KEY.{name}" for name in shapes)}


def test_every_type_has_its_keys() -> None:
    for line in ("### method.type: grpo", "### adapter.type: p_tuning", "#### sweep.scheduler.type: pbt"):
        assert f"\n{line}\n" in PAGE
    assert PAGE.count("| `method.type` |") == PAGE.count("| `sweep.search.type` |") == 1
    assert "| `scale.stage` | one of `1`, `2`, `3`, `null` | `null`; `2` with deepspeed |" in PAGE


def test_links_lead_somewhere() -> None:
    headings = {heading.replace(".", "") for heading in re.findall(r"^#+ ([\w.]+)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\(#(.*?)\)", PAGE)) <= headings
    for page in re.findall(r"\(([^()#]+\.md)\)", PAGE):
        assert (DOCS.parent / page).exists()


def test_rows_are_rows_of_four_cells() -> None:
    for line in PAGE.splitlines():
        assert not line.startswith("|") or len(re.findall(r"(?<!\\)\|", line)) == 5, line
        assert line.startswith("|") or len(line) <= 120, line


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "integer", "minimum": 1}, "whole number (1 or more)"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number (above 0, 1 or less)"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "true or false, or `null`"),
        ({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}, "one of `a`, `b`, `null`"),
        ({"type": "array", "items": {"type": "number"}, "minItems": 1}, "list of numbers (not empty)"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "mapping (values: text)"),
        ({"type": ["object", "null"]}, "mapping or `null`"),
    ],
)
def test_types_in_words(node: dict[str, Any], words: str) -> None:
    assert type_in_words(node) == words


def test_values_in_words() -> None:
    assert value_in_words({"CPU": 1.0, "on": True, "rates": [1e-8, 2e-4], "none": None}) == (
        "{CPU: 1, on: true, rates: [1e-8, 0.0002], none: null}"
    )
