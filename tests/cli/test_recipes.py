"""`ftlib data build` and its kin: from a recipe to a version, and what is printed of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftlib.config.recipe.schema import recipe_schema
from tests.conftest import ftlib


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FTLIB_REGISTRY", raising=False)
    rows = [{"text": f"This is ticket {number % 30}", "label": "ab"[number % 2]} for number in range(60)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = ["dedupe", {"filter": {"where": {"label": "a"}}}, {"split": {"test": 0.2}}]
    tree = {"name": "tickets", "from": [{"jsonl": str(tmp_path / "t.jsonl"), "license": "CC0"}], "steps": steps}
    (tmp_path / "r.yaml").write_text(json.dumps(tree))
    return tmp_path / "r.yaml"


def test_a_recipe_becomes_a_version(recipe: Path) -> None:
    status, said = ftlib("data", "list")
    assert (status, said) == (0, "there is no data yet: ftlib data build RECIPE makes some\n")
    status, said = ftlib("data", "build", recipe)
    assert status == 0, said
    assert "wrote data:tickets@1 (12 train, 3 test)" in said
    assert "nothing has changed: data:tickets@1" in ftlib("data", "build", recipe)[1]
    assert "wrote data:tickets@2" in ftlib("data", "build", recipe, "seed=7")[1]
    status, said = ftlib("data", "list")
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["data:tickets@1", "data:tickets@2"]
    status, said = ftlib("data", "show", "tickets@1", "--rows", 1)
    assert "from t.jsonl (jsonl, CC0)" in said
    assert json.loads(said.splitlines()[-1])["text"].startswith("This is ticket")
    status, said = ftlib("data", "show", "tickets", "--dropped", "filter", "--rows", 1)
    assert said.startswith('t.jsonl:2: where.label: is b  {"text": "This is ticket 1", "label": "b"}')
    status, said = ftlib("data", "diff", "tickets@1", "tickets@2")
    assert "train: " in said


def test_what_is_wrong_is_said_in_a_sentence(recipe: Path) -> None:
    assert ftlib("data", "show", "tickets") == (
        2, "error: there is no data 'tickets' in the registry. There is none yet: ftlib data build RECIPE makes one.\n"
    )  # fmt: skip
    status, said = ftlib("data", "build", recipe, "steps=[cleen]")
    assert (status, said) == (2, f"error: {recipe}: there is no key 'steps.0.cleen'. Did you mean 'clean'?\n")
    status, said = ftlib("data", "build", recipe, "steps=[{filter: {min_chars: 900}}]")
    assert (status, said.splitlines()[-1]) == (
        2, "error: steps: after filter no row is left (60 min_chars): there is nothing to train on."
    )  # fmt: skip
    ftlib("data", "build", recipe)
    assert (
        "there is dedupe, filter. Did you mean 'filter'?" in ftlib("data", "show", "tickets", "--dropped", "filtr")[1]
    )


def test_the_schema_is_printed() -> None:
    assert json.loads(ftlib("data", "schema")[1]) == recipe_schema()
