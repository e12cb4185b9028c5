"""Versions of data: numbered, hashed, believed only where the files are what they were; and named in an experiment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.driver.execute import _resolved
from ftlib.driver.listener import SILENT
from ftlib.driver.load import load
from ftlib.driver.prepare import prepared
from ftlib.errors import ConfigError, FtlibError, InputError
from ftlib.registry import data_named, data_versions
from ftlib.registry.card import card
from ftlib.registry.data_card import data_card
from ftlib.registry.data_diff import difference
from ftlib.registry.data_versions import DataVersion, hash_of, register, why_no_manifest
from ftlib.run.manifest import why_none


@pytest.fixture(autouse=True)
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_REGISTRY", str(tmp_path / "registry"))


def built(name: str = "tickets", seed: int = 0, **sides: list[str]) -> DataVersion:
    def fill(folder: Path) -> Mapping[str, Any]:
        files = {}
        for side, texts in (sides or {"train": ["a", "b"], "eval": ["c"], "test": ["d"]}).items():
            content = "".join(
                json.dumps({"_id": "0" * 16, "_from": "x:1", "prompt": text, "completion": "yes"}) + "\n"
                for text in texts
            )
            (folder / f"{side}.jsonl").write_text(content)
            sha256 = data_versions._sha256(folder / f"{side}.jsonl")
            files[f"{side}.jsonl"] = {"rows": len(texts), "bytes": len(content), "sha256": sha256}
        counts = {"filter": {"in": 9, "out": 4, "dropped": {"min_chars": 5 - seed}, "changed": {}}}
        return {"data": files, "recipe": {"seed": seed}, "sources": [], "counts": counts}

    return register(name, fill, lambda told: f"# {told['name']}\n")


def test_versions_have_numbers_and_a_hash() -> None:
    first, again, second = built(), built(), built(seed=1)
    assert (first.id, again.id, second.id) == ("tickets@1", "tickets@1", "tickets@2")
    assert first.hash == second.hash == hash_of(first.manifest["data"])
    assert data_versions.resolve("data:tickets") == second
    assert data_versions.resolve("tickets@1") == first
    assert data_versions.names() == ["tickets"]
    assert (first.path / "README.md").read_text() == "# tickets\n"
    with pytest.raises(InputError, match="Did you mean 'tickets'?"):
        data_versions.resolve("ticket")
    with pytest.raises(InputError, match="no version '7': there is tickets@1, tickets@2"):
        data_versions.resolve("tickets@7")
    with pytest.raises(InputError, match="cannot be a name of data"):
        data_versions.resolve("../tickets")


def test_a_changed_file_is_not_believed() -> None:
    version = built()
    assert version.file("train") == version.path / "train.jsonl"
    os.chmod(version.path / "train.jsonl", 0o644)
    content = (version.path / "train.jsonl").read_text()
    (version.path / "train.jsonl").write_text(content.replace('"a"', '"z"'))
    with pytest.raises(FtlibError, match="is not what data:tickets@1 was built with"):
        version.file("train")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda told: told["data"].update({"../x": {}}), "it names a file that is none of data"),
        (lambda told: told["data"]["train.jsonl"].update(sha256="0" * 64), "its hash is not that of its files"),
        (lambda told: told["data"]["train.jsonl"].update(bytes="many"), "it does not say what train.jsonl is"),
        (lambda told: told.update(data=[]), "it names no rows"),
        (lambda told: told.update(kind="adapter"), "it names no rows"),
    ],
)
def test_a_manifest_is_looked_at_before_it_is_believed(change: Any, why: str) -> None:
    told = json.loads(json.dumps(built().manifest))
    assert why_no_manifest(told) is None
    change(told)
    assert why_no_manifest(told) == why


def test_an_experiment_names_data(tree: dict[str, Any], tmp_path: Path) -> None:
    built()
    tree["data"] = {"train": "data:tickets", "max_length": 64}
    tree["evaluation"] = {"tasks": [{"name": "t", "data": "data:tickets@1", "metrics": ["exact_match"]}]}
    tree.pop("sweep", None)
    file = tmp_path / "e.yaml"
    file.write_text(json.dumps(tree))
    experiment = load(str(file), [])
    folder = tmp_path / "registry" / ".data" / "tickets" / "1"
    assert experiment.data.train == str(folder / "train.jsonl")
    assert experiment.data.eval == str(folder / "eval.jsonl")
    assert experiment.evaluation.tasks[0].data == str(folder / "test.jsonl")
    told = data_named.lineage(experiment)
    assert {key: one["version"] for key, one in told.items()} == {
        "data.train": "data:tickets@1", "data.eval": "data:tickets@1", "evaluation.t": "data:tickets@1"
    }  # fmt: skip
    data = prepared(experiment, SILENT)
    assert (data.report.train_rows, data.report.eval_rows, data.report.odd) == (2, 1, ())
    assert _resolved(experiment, data, told)["data"]["versions"] == told
    assert load(str(file), ["data.eval_split=0.5"]).data.eval is None
    assert load(str(file), ["data.eval=data:tickets/test"]).data.eval == str(folder / "test.jsonl")
    for override, said in {
        "data.train=data:tickts": "data.train: there is no data 'tickts' in the registry. Did you mean 'tickets'?",
        "data.train=data:tickets/tst": "data has train, eval, test, not 'tst'. Did you mean 'test'?",
    }.items():
        with pytest.raises(ConfigError) as error:
            load(str(file), [override])
        assert said in str(error.value)
    built("small", train=["a"])
    with pytest.raises(ConfigError, match="data:small@1 has no rows for eval: it has train"):
        load(str(file), ["data.eval=data:small"])


def test_a_manifest_of_weights_may_name_data() -> None:
    told = {"data_versions": {"data.train": {"version": "data:tickets@1", "hash": "ab" * 32}}}
    assert f"`data.train`: `data:tickets@1`, hash `{'ab' * 8}`" in card("support", told, {}, {})
    assert why_none({"data_versions": {"data.train": {"version": "data:tickets@1", "hash": "ab"}}}) is None
    assert why_none({"data_versions": {"data.train": "data:tickets@1"}}) == "its 'data_versions' is none"


def test_a_difference_is_told_by_rows_and_steps() -> None:
    old, new = built(), built(seed=2, train=["a", "d", "e"], eval=["c"])
    assert list(difference(old, new)) == [
        "train: 2 rows added, 1 removed, 1 in both",
        "eval: 0 rows added, 0 removed, 1 in both",
        "test: 0 rows added, 1 removed, 0 in both",
        "warning: 1 rows of the test of tickets@1 are trained on in tickets@2",
        "filter: dropped min_chars 5 -> 3",
        "the recipes differ: 'ftlib data show' prints where each lies",
    ]
    assert list(difference(old, old)) == [
        "data:tickets@1 and data:tickets@1 have the same rows.",
        "train: 0 rows added, 0 removed, 2 in both",
        "eval: 0 rows added, 0 removed, 1 in both",
        "test: 0 rows added, 0 removed, 1 in both",
    ]


def test_experiments_without_data_of_the_registry_are_left_alone(tree: dict[str, Any]) -> None:
    experiment = Experiment.parse(tree)
    assert data_named.lineage(experiment) == {}


def test_the_card_says_which_models_wrote() -> None:
    steps = [
        "clean",
        {"generate": {"kind": "answers", "teacher": {"model": "https://h/v1", "name": "large"}}},
        {"filter": {"quality": {"judge": "registry:judge", "at_least": 7}}},
    ]
    told = {"name": "t", "data": {}, "counts": {}, "sources": [], "hash": "0", "recipe": {"steps": steps}}
    text = data_card(told)
    assert "| `generate` | `large at https://h/v1` |\n| `filter` | `registry:judge` |" in text
    assert "A model that is asked anew may answer otherwise" in text
    assert "Models that wrote" not in data_card({**told, "recipe": {"steps": ["clean"]}})
