"""A trial of `method: {type: merge}`: what `ftlib merge` makes, evaluated as any trial, in a directory like any."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftlib.config import Experiment
from ftlib.driver.merge import part_of
from ftlib.errors import ConfigError, InputError, TrialError
from ftlib.methods.merge import check
from ftlib.registry.promotion import Conditions, promote
from ftlib.run.directory import Run
from tests.driver.test_merge import trained
from tests.models.test_merging import model
from tests.training.test_trial import setting, train, weights


@pytest.fixture(scope="module")
def pair(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pair")
    return {name: str(trained(base, folder / name, seed, r=4 * seed)) for seed, name in enumerate("ab", 1)}


@pytest.fixture
def merging(tree: dict[str, Any], pair: dict[str, str]) -> dict[str, Any]:
    return {**tree, "adapter": None, "train": {}, "method": {"type": "merge", "models": pair}}


def test_one_alone_is_that_model(merging: dict[str, Any], pair: dict[str, str], tmp_path: Path) -> None:
    merging["method"]["weights"] = {"a": 1, "b": 0}
    done = setting(merging, tmp_path, baseline=True)
    told = train(done)
    trial = Run(Path(done.run)).trial("000")
    assert [(row["step"], row["tokens"], row["progress"], row["finished"]) for row in told] == [(0, 0, 1.0, True)]
    assert trial.manifest["metrics"]["eval_loss"] == told[0]["eval_loss"]
    parents = trial.manifest["merge"]["parents"]
    assert [(parent["name"], parent["weight"]) for parent in parents] == [("a", 1.0), ("b", 0.0)]
    own = load_file(Path(pair["a"]) / "adapter_model.safetensors")
    assert all(torch.equal(part, own[name]) for name, part in weights(done).items())
    (before,) = Run(Path(done.run)).trial("base").evaluations("eval_loss")
    assert before["eval_loss"] != told[0]["eval_loss"]
    assert train(done)[0]["time"] == trial.metrics()[0]["time"]  # it is not merged again
    assert not list(trial.path.glob(".*"))


def test_nothing_of_two_is_the_base(merging: dict[str, Any], pair: dict[str, str], tmp_path: Path) -> None:
    """The difference of an adapter and itself: so the number is that of what was merged."""
    merging["method"] |= {"models": {"a": pair["a"], "b": pair["a"]}, "weights": {"a": 1, "b": -1}}
    done = setting(merging, tmp_path, baseline=True)
    (told,) = train(done)
    (before,) = Run(Path(done.run)).trial("base").evaluations("eval_loss")
    assert told["eval_loss"] == pytest.approx(before["eval_loss"], abs=1e-6)


def test_whole_models(merging: dict[str, Any], base: Path, tmp_path: Path) -> None:
    """Halfway between the base plus and the base minus something lies the base."""
    plus = load_file(model(base, tmp_path / "plus", 1) / "model.safetensors")
    start = load_file(base / "model.safetensors")
    from safetensors.torch import save_file

    model(base, tmp_path / "minus", 1)
    told = {name: 2 * start[name] - part for name, part in plus.items()}
    save_file(told, tmp_path / "minus" / "model.safetensors", metadata={"format": "pt"})
    models = {name: str(tmp_path / name) for name in ("plus", "minus")}
    merging["method"] = {"type": "merge", "models": models, "weights": {"plus": 3, "minus": 3}, "normalize": True}
    done = setting(merging, tmp_path, baseline=True)
    (found,) = train(done)
    (before,) = Run(Path(done.run)).trial("base").evaluations("eval_loss")
    assert found["eval_loss"] == pytest.approx(before["eval_loss"], abs=1e-5)
    trial = Run(Path(done.run)).trial("000")
    assert (trial.manifest["kind"], trial.manifest["merge"]["weights"]) == ("model", [0.5, 0.5])


def test_what_cannot_be_merged_is_said_before_anything(merging: dict[str, Any], base: Path, tmp_path: Path) -> None:
    swept: dict[str, Any] = {"space": {"method.merge_method": ["linear", "ties"]}}
    variants = {
        "space": {"method": [{"merge_method": "svd"}, {"merge_method": ["ties_svd", "ties"], "density": [0.3]}]}
    }
    for sweep in (swept, variants):
        with pytest.raises(InputError, match=r"method ties needs one rank, and there are 4 \(a\), 8 \(b\)"):
            check(Experiment.parse({**merging, "sweep": sweep}))
    other = {**merging["model"], "name_or_path": str(model(base, tmp_path / "other", 3))}
    with pytest.raises(ConfigError, match=re.escape("a, which method.models names, was trained on other weights")):
        check(Experiment.parse({**merging, "model": other}))
    whole = {"type": "merge", "models": {"a": str(base), "b": str(tmp_path / "other")}}
    swept = {"space": {"method.weights.a": {"min": 0, "max": 1}}}
    with pytest.raises(ConfigError, match="use method.normalize: true"):
        check(Experiment.parse({**merging, "method": whole, "sweep": swept}))
    check(Experiment.parse({**merging, "method": {**whole, "normalize": True}, "sweep": swept}))


def test_its_trial_becomes_a_version(merging: dict[str, Any], tmp_path: Path) -> None:
    done = setting(merging, tmp_path)
    train(done)
    run = Run(Path(done.run))
    version = promote(run, run.trial("000"), "both", Conditions(), lambda sentence: None)
    assert [parent["name"] for parent in version.manifest["merge"]["parents"]] == ["a", "b"]
    assert version.manifest["gate"]["passed"] is True
    assert "merged with ftlib of 2 models" in (version.path / "README.md").read_text()
    assert part_of("both").facts(1.0)["name"] == "both@1"


def test_what_a_trial_cannot_merge_is_its_reason(merging: dict[str, Any], tmp_path: Path) -> None:
    merging["method"]["merge_method"] = "ties"
    with pytest.raises(TrialError, match="needs one rank"):
        train(setting(merging, tmp_path))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"train": {"learning_rate": 1e-3}}, "train.learning_rate has no effect: method.type 'merge' trains nothing"),
        ({"sweep": {"space": {"train.max_steps": [1, 2]}}}, "train.max_steps has no effect"),
        ({"adapter": {"type": "lora"}}, "the adapters that are merged have shapes of their own"),
        ({"sweep": {"space": {"method.weights.c": [0, 1]}}}, "there is no 'c' among a, b"),
        ({"sweep": {"space": {"method.models.a": ["x", "y"]}}}, "a weight of 0 leaves one out"),
        ({"sweep": {"space": {"method.density": [0.5]}}}, "density has no effect with 'linear'"),
        ({"weights": {"a": 1}}, "weights lacks 'b'"),
        ({"weights": {"a": 1, "b": 1, "bb": 1}}, "weights names 'bb', which is none of the models. Did you mean 'b'?"),
        ({"weights": {"a": 1, "b": -1}, "normalize": True}, "normalize divides by their sum"),
        ({"models": {"a.b": "x", "c": "y"}}, "method.models.a.b"),
    ],
)
def test_what_has_no_effect_is_refused(keys: dict[str, Any], reason: str, merging: dict[str, Any]) -> None:
    of_method = {key: keys.pop(key) for key in ("weights", "normalize", "models") if key in keys}
    with pytest.raises(ConfigError, match=re.escape(reason)):
        Experiment.parse({**merging, **keys, "method": {**merging["method"], **of_method}})
