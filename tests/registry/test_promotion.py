"""From a trial to a version, through the command line: what is said, what is kept, and that a refusal leaves
nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftlib.files.atomic import write_json
from ftlib.files.home import home
from ftlib.files.json_files import read_json
from ftlib.registry import promotion, registry
from ftlib.registry.drift import words
from ftlib.registry.profile import read_profile
from ftlib.run.directory import Run

from ..conftest import COLOURS, ftlib, rows, write_jsonl


def test_the_gate_is_passed_and_told(swept: tuple[Run, str], tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "held.jsonl", rows(90)[80:])
    status, output = ftlib("promote", swept[0].path, "--as", "gated", "--unless-worse-than", file)
    assert status == 0, output
    assert "gate: chat template as in training; 4 evaluation rows in float32" in output
    assert "there is no version to compare with" in output
    kept = registry.current("gated").manifest["gate"]
    assert kept["passed"] is True
    assert kept["loss"]["file"] == str(file)
    worst = max(swept[0].trials(), key=lambda trial: trial.manifest["metrics"]["eval_loss"])
    status, output = ftlib("promote", swept[0].path, worst.id, "--as", "gated", "--unless-worse-than", file)
    assert status == 1
    assert "is worse than gated@1" in output
    assert "Traceback" not in output
    assert [version.number for version in registry.versions("gated")] == [1]
    assert not list((home() / "registry" / "gated").glob(".staged*"))


def test_a_promotion_that_was_overtaken_is_compared_again(
    swept: tuple[Run, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_jsonl(tmp_path / "held.jsonl", rows(90)[80:])
    run = swept[0]
    best, *_, worst = sorted(run.trials(), key=lambda trial: trial.manifest["metrics"]["eval_loss"])
    registry.register(run, worst, "race")
    compare = promotion._Promotion.compare

    def slowly(self: promotion._Promotion, reference: registry.Version | None) -> dict[str, Any]:
        found = compare(self, reference)
        if reference is not None and reference.number == 1:
            registry.register(run, best, "race")
        return found

    monkeypatch.setattr(promotion._Promotion, "compare", slowly)
    status, output = ftlib("promote", run.path, worst.id, "--as", "race", "--unless-worse-than", file)
    assert status == 1
    assert "race@1 has" in output
    assert "is worse than race@2" in output
    assert [version.number for version in registry.versions("race")] == [1, 2]


def test_an_adapter_that_does_less_than_rounding_is_said() -> None:
    found = {"chat_template": "as in training", "probes": "4 evaluation rows", "dtype": "bfloat16"}
    found |= {"bank": 0.01, "merged": 0.01, "tolerance": 0.06}
    assert "less than what rounding does in bfloat16 (0.06)" in promotion._sentences({**found, "effect": 0.05})[-1]
    assert len(promotion._sentences({**found, "effect": 0.07})) == 1


def test_a_skipped_gate_is_written_down(swept: tuple[Run, str]) -> None:
    status, output = ftlib("promote", swept[0].path, "--as", "ungated", "--no-gate")
    assert status == 0
    assert "warning: the gate was skipped" in output
    assert registry.current("ungated").manifest["gate"] == {"passed": None, "skipped": "--no-gate"}


def test_a_merged_version_is_a_whole_model_that_computes_the_same(swept: tuple[Run, str], base: Path) -> None:
    from peft import PeftModel

    status, output = ftlib("promote", swept[0].path, "000", "--as", "whole", "--merged", "--engine", "vllm")
    assert status == 0, output
    version = registry.current("whole")
    assert version.kind == version.manifest["kind"] == "model"
    assert version.manifest["merged"] is True
    assert not (version.path / "adapter").exists()
    registry.check_loadable(version, engine="vllm")
    ids = torch.arange(5, 25)[None]
    adapter = swept[0].trial("000").path / "adapter"
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        one, other = beside(ids).logits, AutoModelForCausalLM.from_pretrained(version.weights).eval()(ids).logits
    assert torch.allclose(one, other, atol=1e-4)
    assert version.manifest["gate"]["merged"] < 1e-5


@pytest.fixture
def spoiled(swept: tuple[Run, str], tmp_path: Path) -> Run:
    shutil.copytree(swept[0].path, tmp_path / "run")
    return Run(tmp_path / "run")


def test_what_the_engine_cannot_serve_is_said_before_anything_is_loaded(spoiled: Run) -> None:
    file = spoiled.trial("000").path / "adapter" / "adapter_config.json"
    write_json(file, read_json(file) | {"use_dora": True})
    status, output = ftlib("promote", spoiled.path, "000", "--as", "dora", "--engine", "vllm")
    assert status == 2
    assert "is a DoRA adapter, which vLLM does not serve: use the bank engine, or promote it with --merged" in output
    status, output = ftlib("promote", spoiled.path, "001", "--as", "dora", "--max-rank", "1")
    assert status == 2
    assert "this engine's maximum is 1" in output
    assert "dora" not in registry.names()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--no-gate", "--unless-worse-than", "x"], "leave one of them out"),
        (["--unless-worse-than", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["--slack", "0.1"], "name it with --unless-worse-than"),
        (["--slack", "-1", "--unless-worse-than", "."], "give 0 or more"),
        (["--canary", "2"], "no share"),
        (["--canary", "0.1"], "not in the registry"),
    ],
)
def test_conditions_that_are_none(swept: tuple[Run, str], options: list[str], reason: str) -> None:
    status, output = ftlib("promote", swept[0].path, "--as", "nothing", *options)
    assert (status, reason in output) == (2, True), output
    assert "nothing" not in registry.names()


# --- the profile ------------------------------------------------------------------------------------------------


def profile_of(name: str) -> dict[str, Any]:
    found = read_profile(registry.current(name).path)
    assert found is not None
    return found


def test_the_profile_is_of_prompts_and_answers_as_the_model_read_them(swept: tuple[Run, str]) -> None:
    ftlib("promote", swept[0].path, "--as", "profiled", "--no-gate")
    prompt, answer = profile_of("profiled")["prompt"], profile_of("profiled")["answer"]
    # A fifth of the 64 rows is held out. Special tokens are no words: the endpoint leaves them out too.
    assert prompt.texts.lengths.total() == answer.texts.lengths.total() == 64 - 13
    assert set(words("It is")) | set(COLOURS) == set(answer.texts.words)
    assert {"which", "colour"} <= set(prompt.texts.words)
    assert max(answer.texts.lengths) < min(prompt.texts.lengths)


def test_without_the_data_a_promotion_says_so_and_goes_on(spoiled: Run) -> None:
    trial = spoiled.trial("000")
    write_json(trial.path / "manifest.json", trial.manifest | {"data_hash": "gone"})
    status, output = ftlib("promote", spoiled.path, "000", "--as", "dataless", "--no-gate")
    assert status == 0
    assert "warning: no profile of its data" in output
    assert read_profile(registry.current("dataless").path) is None
