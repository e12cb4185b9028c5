"""`ftlib merge`: from names to a version with its parents, and to an endpoint's base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ftlib.config import ModelSection
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.models.base import identity, load_model, load_tokenizer
from ftlib.registry import registry
from ftlib.run.leaderboard import leaderboard
from tests.conftest import ftlib, only_run, write_experiment
from tests.models.test_merging import close, deltas, drawn, model


def trained(base: Path, folder: Path, seed: int, **keys: Any) -> Path:
    """An adapter as a trial leaves it: with its tokenizer, and a manifest beside it."""
    adapter, section = drawn(base, folder / "adapter", seed, **keys), ModelSection(name_or_path=str(base))
    tokenizer = load_tokenizer(section)
    tokenizer.save_pretrained(adapter)
    experiment = {"name": "x", "model": {"name_or_path": str(base)}, "data": {"train": "d"}, "method": {"type": "sft"}}
    told = {"base": identity(section, load_model(section)), "chat_template": tokenizer.chat_template}
    write_json(folder / "manifest.json", {**told, "experiment": experiment, "metrics": {"eval_loss": 1.0}, "step": 5})
    return adapter


@pytest.fixture(scope="module")
def pair(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return trained(base, folder / "a", 1, lora_alpha=8), trained(base, folder / "b", 2, r=8)


def test_adapters_become_a_version_with_its_parents(base: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = pair
    status, output = ftlib("merge", a, b, "--method", "linear", "--weights", "0.7,0.3", "--as", "joined")
    assert (status, "2 models merged are now joined@1" in output) == (0, True), output
    version = registry.resolve("joined")
    one, other = deltas(base, a), deltas(base, b)
    assert close(deltas(base, version.weights), {name: 0.7 * one[name] + 0.3 * other[name] for name in one})
    told = version.manifest["merge"]
    assert (told["method"], told["weights"]) == ("linear", [0.7, 0.3])
    assert [parent["name"] for parent in told["parents"]] == [str(a), str(b)]
    assert version.manifest["gate"]["passed"] is True
    assert version.manifest["gate"]["merged"] < 1e-5
    assert not {"metrics", "step"} & version.manifest.keys()  # nobody has measured it
    card = (version.path / "README.md").read_text()
    assert "merged with ftlib of 2 models" in card
    assert "weight 0.7, fingerprint" in card
    assert str(tmp_path.parent) not in card
    status, output = ftlib("merge", "registry:joined", a, "--method", "svd", "-o", tmp_path / "again")
    assert status == 0, output
    found = read_json(tmp_path / "again" / "manifest.json") or {}
    assert found["merge"]["parents"][0]["name"] == "joined@1"
    assert (tmp_path / "again" / "adapter" / "chat_template.jinja").exists()


def test_whole_models_become_one(base: Path, tmp_path: Path) -> None:
    a, b = (model(base, tmp_path / name, seed) for seed, name in enumerate("ab"))
    words = ("--method", "task_arithmetic", "--base", base, "--weights", "1,0.5")
    status, output = ftlib("merge", a, b, *words, "-o", tmp_path / "out")
    assert status == 0, output
    found = read_json(tmp_path / "out" / "manifest.json") or {}
    assert found["merge"]["base"]["name"] == str(base)
    assert found["gate"]["reloaded"] == "finite logits"
    states = [load_file(folder / "model.safetensors") for folder in (base, a, b, tmp_path / "out" / "model")]
    start, one, other, merged = states
    for name, tensor in merged.items():
        assert torch.allclose(tensor, one[name] + 0.5 * (other[name] - start[name]), atol=1e-6)
    status, output = ftlib("merge", tmp_path / "out" / "model", a, "--method", "slerp", "--as", "whole")
    assert status == 0, output
    assert registry.resolve("whole").kind == "model"


def test_one_adapter_goes_into_its_base_as_ever(base: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    status, output = ftlib("merge", pair[0], "-o", tmp_path / "out")
    assert (status, output) == (0, f"merged into {tmp_path}/out\n")
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), pair[0])
    ids = torch.arange(5, 17)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(merged(ids).logits, beside(ids).logits, atol=1e-4)


def other_base(base: Path, folder: Path) -> Path:
    """One number of it differs."""
    shutil.copytree(base, folder)
    state = load_file(base / "model.safetensors")
    state["model.norm.weight"][0] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_cannot_be_merged_is_refused_by_name(base: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = pair
    moved = trained(other_base(base, tmp_path / "other"), tmp_path / "moved", 3)
    shutil.copytree(a.parent, tmp_path / "nf4")
    told = json.loads((tmp_path / "nf4" / "manifest.json").read_text())
    told["experiment"]["model"]["quantization"] = "nf4"
    (tmp_path / "nf4" / "manifest.json").write_text(json.dumps(told))
    to = ("-o", tmp_path / "out")
    for words, reason in [
        ((a, moved, "--method", "linear", *to), f"{a} was trained on {base} ("),
        ((a, tmp_path / "nf4" / "adapter", "--method", "linear", *to), "with quantization null, and"),
        ((a, base, "--method", "linear", *to), f"{base} is a whole model: compute the adapter into its base first"),
        ((a, b, "--method", "slerp", *to), "method slerp does not merge adapters: use one of linear, svd"),
        ((base, base, "--method", "ties", *to), "method ties does not merge whole models: use one of linear, slerp"),
        ((a, b, "--method", "ties", *to), "needs one rank, and there are 4"),
        ((a, b, "--method", "linear"), "say where the merged model goes"),
        ((a, b, "--method", "linear", "--as", "x", *to), "say where the merged model goes"),
        ((a, b, "--method", "linear", "--weights", "1,x", *to), "'1,x' is no list of numbers"),
        ((a, b, "--method", "linear", "--weights", "1", *to), "weights has 1 numbers, and there are 2 models"),
        ((a, "--method", "linear", *to), "one model is nothing to merge"),
        ((a, b, tmp_path / "out"), "3 MODELs: say by --method"),
        ((a, tmp_path / "out", "--weights", "1,1"), "--weights: say by --method"),
        ((a,), "say where the model goes"),
        ((base, tmp_path / "out"), "is a whole model already"),
        ((tmp_path / "othr", b, "--method", "linear", *to), "othr'. Did you mean 'other'?"),
        (("registry:nobody", b, "--method", "linear", *to), "'nobody' is not in the registry"),
        ((tmp_path, b, "--method", "linear", *to), "is no folder of weights"),
    ]:
        status, output = ftlib("merge", *words)
        assert (status, reason in output) == (2, True), (words, output)
    assert not (tmp_path / "out").exists()


@pytest.mark.matrix
def test_a_sweep_finds_how_to_merge(
    pair: tuple[Path, Path], tree: dict[str, Any], tmp_path: Path, ray_local: None
) -> None:
    """From names to a leaderboard, a report and a version with its parents."""
    tree["method"] = {"type": "merge", "models": {"one": str(pair[0].parent / "adapter"), "other": str(pair[1])}}
    ways = [{"merge_method": "linear"}, {"merge_method": "ties_svd", "density": [0.2, 0.8]}]
    space = {"method": ways, "method.weights.one": {"min": -1, "max": 1}}
    tree |= {"adapter": None, "train": {}, "sweep": {"space": space, "num_samples": 3, "baseline": False}}
    file = write_experiment(tmp_path / "merging.yaml", tree)
    status, output = ftlib("check", file)
    assert status == 0, output
    assert "a trial:    merges and is evaluated" in output
    status, output = ftlib("sweep", file)
    assert status == 0, output
    run = only_run(tree["storage"])
    rows = leaderboard(run).rows
    assert [row.state for row in rows] == ["finished"] * 3
    assert {row.params.get("method.merge_method") for row in rows} <= {"linear", "ties_svd", None}
    assert (run.path / "report.html").is_file()
    status, output = ftlib("promote", run.path, "--as", "swept-merge")
    assert status == 0, output
    version = registry.resolve("swept-merge")
    assert [parent["name"] for parent in version.manifest["merge"]["parents"]] == ["one", "other"]
    assert version.manifest["gate"]["passed"] is True
    assert "merged with ftlib of 2 models" in (version.path / "README.md").read_text()
