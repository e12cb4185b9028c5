"""A promoted adapter as the base of the next experiment: merged once, or trained further as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftlib.config import Experiment
from ftlib.config.recipe import Recipe
from ftlib.driver.data_build import with_folders
from ftlib.errors import ConfigError, FtlibError
from ftlib.files.home import home
from ftlib.registry import bases, registry
from ftlib.registry.gate import pass_gate
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from tests.training.test_trial import losses, setting, train

from ..conftest import write_jsonl
from ..methods.conftest import pairs
from ..pack.conftest import pack_of
from ..pack.conftest import train as train_packed

NEXT = "registry:forebear"


@pytest.fixture(scope="module")
def first(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """A promoted LoRA winner."""
    tree = {
        "name": "forebear",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
        "train": {"learning_rate": 3e-2, "num_train_epochs": 3, "per_device_train_batch_size": 8},
    }
    done = setting(tree, tmp_path_factory.mktemp("forebear"))
    train(done)
    run = Run(Path(done.run))
    run.trial("000").set_state("finished")
    return registry.register(run, run.trial("000"), "forebear")


@pytest.fixture
def prefers(tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """DPO after it, on the same base."""
    tree["data"]["train"] = str(write_jsonl(tmp_path / "pairs.jsonl", pairs(40)))
    tree["method"] = {"type": "dpo"}
    tree["train"].update(learning_rate=5e-3, max_steps=4, logging_steps=1)
    return tree


def resolved(tree: dict[str, Any]) -> dict[str, Any]:
    return bases.resolved(Experiment.parse(tree)).to_dict()


def promoted(done: Any, name: str) -> Version:
    run = Run(Path(done.run))
    run.trial("000").set_state("finished")
    return registry.register(run, run.trial("000"), name)


# --- merged -------------------------------------------------------------------------------------------------------


def test_an_adapter_is_merged_once_with_its_tokenizer(first: Version, base: Path) -> None:
    folder = bases.merged(first)
    assert folder.parent == home() / "cache" / "merged"
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert bases.merged(first) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), first.weights)
    with torch.no_grad():
        ours, theirs = AutoModelForCausalLM.from_pretrained(folder)(ids).logits, beside(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    templates = [AutoTokenizer.from_pretrained(path).chat_template for path in (folder, first.weights)]
    assert templates[0] == templates[1] is not None


def test_the_teacher_of_a_recipe_is_merged(first: Version) -> None:
    steps = [{"pairs": {"rejected": {"model": "registry:forebear"}}}, {"generate": {"kind": "answers", "teacher": "m"}}]
    recipe = with_folders(Recipe.parse({"name": "t", "from": ["a.csv"], "steps": steps}))
    assert recipe.steps[0].settings.rejected.model == str(bases.merged(first))  # type: ignore[attr-defined]
    assert recipe.steps[1].settings.teacher.model == "m"  # type: ignore[attr-defined]


def test_what_is_trained_on_it_names_both_and_finds_it_again(
    first: Version, base: Path, prefers: dict[str, Any], tmp_path: Path
) -> None:
    prefers["model"]["name_or_path"] = NEXT
    tree = resolved(prefers)
    assert tree["model"]["name_or_path"] == str(bases.merged(first))
    done = setting(tree, tmp_path)
    train(done)
    second = promoted(done, "forebear-dpo")
    assert (second.parent, second.base) == ("forebear@1", str(base))
    folder = Path(second.manifest["base"]["name_or_path"])
    weights = load_file(folder / "model.safetensors")
    shutil.rmtree(folder)
    assert pass_gate(second, "forebear-dpo").found["passed"]
    again = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    third = bases.merged(second)
    assert bases.resolved(
        Experiment.parse(prefers | {"model": {"name_or_path": "registry:forebear-dpo"}})
    ).model.name_or_path == str(third)


def test_a_merged_base_that_was_changed_is_refused(first: Version) -> None:
    folder = bases.merged(first)
    config = folder / "config.json"
    text = config.read_text()
    config.write_text(text.replace("{", "{ ", 1))
    with pytest.raises(FtlibError, match=r"forebear@1 merged into its base, was changed: remove it"):
        bases.merged(first)
    config.write_text(text)
    bases.merged(first)


def test_a_base_in_a_space(first: Version, tree: dict[str, Any]) -> None:
    tree["sweep"] = {"space": {"model.name_or_path": [NEXT]}}
    found = resolved(tree)["sweep"]["space"]["model.name_or_path"]
    assert found["choices"] == [str(bases.merged(first))]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"name_or_path": "registry:forebaer"}}, "Did you mean 'forebear'"),
        ({"model": {"name_or_path": "registry:forebear@7"}}, "no version '7'"),
    ],
)
def test_names_that_are_not_there(first: Version, tree: dict[str, Any], change: dict[str, Any], reason: str) -> None:
    with pytest.raises(FtlibError, match=reason):
        resolved(tree | change)


# --- trained further ------------------------------------------------------------------------------------------------


def goes_on(tree: dict[str, Any], **adapter: Any) -> dict[str, Any]:
    return tree | {"adapter": {"type": "lora", "from": NEXT, **adapter}}


def test_training_goes_on_where_the_adapter_is(first: Version, tree: dict[str, Any], tmp_path: Path) -> None:
    """Alone and in a pack alike: its shape, its weights, its losses."""
    tree["train"].update(max_steps=4, logging_steps=1)
    tree = resolved(goes_on(tree))
    assert (tree["adapter"]["r"], tree["adapter"]["lora_alpha"]) == (4, 8)
    alone, packed = setting(tree, tmp_path / "alone"), setting(tree, tmp_path / "packed")
    train(alone)
    assert train_packed(pack_of(packed, rank=4), {"000": {}}) == {}
    ours, theirs = ([loss for _, loss in losses(trial)] for trial in (alone, packed))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[0] == pytest.approx(first.manifest["metrics"]["eval_loss"], abs=0.3)  # a fresh adapter's is ln 400 = 6
    version = promoted(packed, "forebear-sft")
    assert (version.parent, version.base) == ("forebear@1", first.base)


def test_the_reference_is_the_adapter_as_it_was(first: Version, prefers: dict[str, Any], tmp_path: Path) -> None:
    """TRL copies the adapter that training begins with; a pack computes the same. At the first step nothing has
    moved."""
    tree = resolved(goes_on(prefers))
    alone, packed = setting(tree, tmp_path / "alone"), setting(tree, tmp_path / "packed")
    train(alone)
    assert train_packed(pack_of(packed, rank=4), {"000": {}}) == {}
    assert losses(packed)[0][1] == pytest.approx(0.6931, abs=1e-3)
    assert [loss for _, loss in losses(alone)] == pytest.approx([loss for _, loss in losses(packed)], abs=1e-4)


@pytest.mark.parametrize(
    ("adapter", "change", "reason"),
    [
        ({"r": 8}, {}, r"adapter\.r: forebear@1.* has 4: leave the key out"),
        ({"lora_alpha": 4}, {}, r"adapter\.lora_alpha: forebear@1.* has 8"),
        ({"target_modules": ["q_proj"]}, {}, r"adapter\.target_modules: forebear@1"),
        ({}, {"sweep": {"space": {"adapter.r": [2, 4]}}}, r"sweep\.space\.adapter\.r: it is that of forebear@1"),
        ({}, {"model": {"name_or_path": NEXT}}, r"model\.name_or_path: it is forebear@1 merged into its base"),
        ({}, {"method": {"type": "classify"}}, r"adapter\.from: forebear@1 writes text"),
        ({"from": "registry:forebaer"}, {}, "Did you mean 'forebear'"),
    ],
)
def test_what_contradicts_the_adapter_is_named(
    first: Version, tree: dict[str, Any], adapter: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(FtlibError, match=reason):
        resolved(goes_on(tree, **adapter) | change)


def test_another_base_is_named(first: Version, base: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(ConfigError, match=r"model\.name_or_path: forebear@1.* was trained on other weights"):
        resolved(goes_on(tree) | {"model": {"name_or_path": str(other)}})
    shutil.copytree(base, tmp_path / "same")
    resolved(goes_on(tree) | {"model": {"name_or_path": str(tmp_path / "same")}})  # wherever it lies


def test_an_adapter_of_a_quantized_base_is_not_quantized_again(
    first: Version, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = dict(first.manifest)
    manifest["experiment"]["model"]["quantization"] = "nf4"
    monkeypatch.setattr(Version, "manifest", manifest)
    with pytest.raises(ConfigError, match=r"model\.quantization: forebear@1 was trained on an nf4 base"):
        resolved(tree | {"model": {"name_or_path": NEXT, "quantization": "nf4"}})
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"model\.quantization: forebear@1.* quantization null: write that"):
        resolved(goes_on(tree) | {"model": {**tree["model"], "quantization": "nf4"}})
