"""A recipe is read strictly: what is wrong is named with its path, and with the nearest name."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from ftlib.config.loader import parse_yaml, set_dotted
from ftlib.config.recipe import STEP_NAMES, Recipe
from ftlib.config.recipe.schema import recipe_schema
from ftlib.config.schema import descriptions, sections
from ftlib.errors import ConfigError

WHOLE = """
name: tickets
from: [{pdf: manuals/*.pdf}, {csv: t.csv, columns: {text: body}}, {html: wiki/}, "hub:glue", a.jsonl]
steps:
  - clean
  - chunk: {tokens: 512, overlap: 64, by: headings}
  - filter: {min_chars: 50, language: [en], where: {source: forum}, quality: {judge: "http://j/v1", at_least: 7}}
  - labels: {map: {Account: account, 0: none}, case: fold}
  - dedupe: {near: 0.85}
  - redact: [email, phone]
  - generate: {kind: instructions, teacher: "http://t/v1", per_chunk: 3}
  - augment: {typos: 0.1}
  - pairs: {teacher: "http://t/v1", samples: 2, temperatures: [0.2, 1.0], judge: "http://j/v1"}
  - filter: {max_words: 900}
  - balance: {by: label, at_most: 4x}
  - decontaminate: [data/test.jsonl]
  - split: {test: 0.1, eval: 0.1, stratify: label, group: document}
"""


def wrong(key: str, value: Any) -> str:
    tree = parse_yaml(WHOLE)
    if key.startswith("steps.0"):
        tree["steps"][0] = value
    else:
        set_dotted(tree, key, value)
    with pytest.raises(ConfigError) as error:
        Recipe.parse(tree, "r.yaml")
    return str(error.value)


def test_the_whole_is_read() -> None:
    recipe = Recipe.parse(parse_yaml(WHOLE))
    assert {step.name for step in recipe.steps} == set(STEP_NAMES)
    assert [key for key, _ in recipe.keyed_steps if key.startswith("filter")] == ["filter", "filter-2"]
    assert [source.kind for source in recipe.sources] == ["pdf", "csv", "html", "hub", "jsonl"]
    assert Recipe.parse(copy.deepcopy(recipe.to_dict())) == recipe  # what a version keeps of it


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("steps.0", {"cleen": {}}, "there is no key 'steps.0.cleen'. Did you mean 'clean'?"),
        ("steps.0", "cleen", "there is no key 'steps.0.cleen'. Did you mean 'clean'?"),
        ("steps.0", {"clean": {"unicod": True}}, "'steps.0.clean.unicod'. Did you mean 'unicode'?"),
        ("steps.0", {"clean": {}, "chunk": {}}, "steps.0: a step has one name, but this one has clean and chunk"),
        ("steps.0", {"redact": ["emial"]}, "must be one of: email, phone,"),
        ("steps.0", {"split": {"test": 0.1}}, "a recipe has one split, and it is the last step"),
        ("steps.0", {"split": {"test": 0.6, "eval": 0.5}}, "leave no row to train on"),
        ("steps.0", {"split": {"test_size": 0.1}}, "'steps.0.split.test_size'. Known here: eval, group, same"),
        ("steps.0", {"balance": {"at_most": "x4"}}, "'x4' is neither a number of rows nor a multiple"),
        ("steps.0", {"filter": {"where": {"stars": {"at_lest": 2}}}}, "Did you mean 'steps.filter.where.at_least'?"),
        ("steps.0", {"filter": {"language": ["english"]}}, "language: 'english' is no code of ISO 639-1"),
        ("steps.0", {"filter": {"where": {"a": {"matches": "("}}}}, "a: matches is no regular expression: missing )"),
        ("stesp", [], "there is no key 'stesp'. Did you mean 'steps'?"),
        ("from", [{"csvv": "x"}], "there is no key 'from.0.csvv'. Did you mean 'csv'?"),
        ("from", ["wiki/"], "the ending of 'wiki/' names no kind of source"),
        ("from", [{"pdf": "a.pdf", "columns": {"text": "body"}}], "columns is for tables"),
        ("from", [{"csv": "a", "html": "b"}], "but this one has html and csv"),
        ("from", [], "from is empty"),
        ("storage", "ftp://x/y", "storage: 'ftp://x/y' is no place that can be reached"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: Any, said: str) -> None:
    assert said in wrong(key, value)


def test_every_key_is_described() -> None:
    for section in sections(Recipe):
        told = descriptions(section)
        for name in section.model_fields:
            assert told.get(name, "").endswith("."), f"{section.__name__}.{name}"


def test_the_schema_takes_what_ftlib_takes() -> None:
    schema = jsonschema.Draft7Validator(recipe_schema())
    tree = parse_yaml(WHOLE)
    tree["steps"][3]["labels"]["map"] = {"Account": "account"}  # JSON has no other keys than texts
    assert [error.message for error in schema.iter_errors(tree)] == []
    assert not schema.is_valid({**tree, "steps": [{"cleen": {}}]})
