"""Models that become one: what is exact, what is within rounding, and what is refused before anything is written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from ftlib.config import ModelSection
from ftlib.config.merging import OF_ADAPTERS, Merging
from ftlib.errors import InputError
from ftlib.models.merging.adapters import merge_adapters
from ftlib.models.merging.formulas import linear, slerp, task_arithmetic
from ftlib.models.merging.streamed import merge_weights

Deltas = dict[str, Tensor]


def drawn(base: Path, folder: Path, seed: int, **keys: Any) -> Path:
    """An adapter with random A and B."""
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", init_lora_weights=False, **{"r": 4, "target_modules": "all-linear", **keys}
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def deltas(base: Path, adapter: Path) -> Deltas:
    """What an adapter adds to each weight of its base."""
    plain = AutoModelForCausalLM.from_pretrained(base)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    before = plain.state_dict()
    return {name: tensor - before[name] for name, tensor in merged.state_dict().items()}


def close(one: Deltas, other: Deltas, within: float = 1e-5) -> bool:
    return all(torch.allclose(one[name], other[name], atol=within) for name in other)


def merging(count: int, method: str, **keys: Any) -> Merging:
    return Merging.model_validate({"models": [f"m{n}" for n in range(count)], "method": method, **keys})


def model(base: Path, folder: Path, seed: int, dtype: torch.dtype = torch.float32, **saving: Any) -> Path:
    """The base with other numbers."""
    shutil.copytree(base, folder)
    torch.manual_seed(seed)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    for part in loaded.parameters():
        part.data += torch.randn_like(part) * 0.02
    (folder / "model.safetensors").unlink()
    loaded.save_pretrained(folder, **saving)
    return folder


# --- formulas -----------------------------------------------------------------------------------------------------


def test_slerp_keeps_to_the_arc_and_to_the_line_where_there_is_none() -> None:
    east, north = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    half = math.sqrt(2)
    assert torch.allclose(slerp([east, north], [0.5, 0.5]), torch.tensor([half, half]))
    assert torch.equal(slerp([east, north], [1.0, 0.0]), east)
    assert torch.equal(slerp([east, north], [0.0, 1.0]), north)
    for other in (torch.zeros(2), -east, east * 3, east + 1e-4 * north):  # nothing, opposite, parallel, nearly so
        assert torch.equal(slerp([east, other], [0.25, 0.75]), linear([east, other], [0.25, 0.75]))


def test_what_counts_nothing_is_left_out() -> None:
    one, broken = torch.ones(2), torch.tensor([math.inf, math.nan])
    assert torch.equal(linear([one, broken], [1.0, 0.0]), one)
    assert torch.equal(task_arithmetic([one, one * 3], [0.5, 1.0], one), one * 3)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"method": "slerp", "models": ["a", "b", "c"]}, "3 are given: use linear"),
        ({"method": "slerp", "weights": [0.5, 0.6]}, "two of 0 or more that add up to 1"),
        ({"method": "linear", "weights": [1.0]}, "weights has 1 numbers, and there are 2 models"),
        ({"method": "linear", "weights": [0.0, 0.0]}, "weights are all 0"),
        ({"method": "linear", "density": 0.5}, "density has no effect with 'linear'"),
        ({"method": "ties", "density": 1.0}, "less than 1"),
        ({"method": "ties", "seed": 1}, "seed has no effect with 'ties'"),
        ({"method": "task_arithmetic"}, "needs base"),
        ({"method": "linear", "base": "x"}, "base has no effect with 'linear'"),
        ({"method": "linear", "weights": [math.nan, 1.0]}, "finite"),
    ],
)
def test_what_does_not_go_together_is_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Merging.model_validate({"models": ["a", "b"], **keys})


# --- adapters -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of different ranks, scales and layers; the first has rsLoRA."""
    folder = tmp_path_factory.mktemp("pair")
    return {
        "a": drawn(base, folder / "a", 1, lora_alpha=8, use_rslora=True, rank_pattern={"q_proj": 6}),
        "b": drawn(base, folder / "b", 2, r=8, lora_alpha=4, target_modules=["q_proj", "up_proj"]),
    }


@pytest.fixture(scope="module")
def added(base: Path, pair: dict[str, Path]) -> list[Deltas]:
    """What each of them adds."""
    return [deltas(base, folder) for folder in pair.values()]


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.7, -0.4], [2.0, 0.0]])
def test_linear_is_the_sum_of_what_adapters_compute(
    weights: list[float], base: Path, pair: dict[str, Path], added: list[Deltas], tmp_path: Path
) -> None:
    how = merging(2, "linear", weights=weights)
    merge_adapters(pair, ModelSection(name_or_path=str(base)), how, tmp_path / "out")
    one, other = added
    assert close(
        deltas(base, tmp_path / "out"), {name: weights[0] * one[name] + weights[1] * other[name] for name in one}
    )


def test_one_alone_is_itself_to_the_bit(base: Path, pair: dict[str, Path], tmp_path: Path) -> None:
    merge_adapters(pair, ModelSection(name_or_path=str(base)), merging(2, "linear", weights=[1, 0]), tmp_path / "out")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (pair["a"] / name).read_bytes()


def test_svd_is_the_nearest_of_the_largest_rank(base: Path, tmp_path: Path) -> None:
    """Of twice the same adapter, it is that adapter."""
    a = drawn(base, tmp_path / "a", 1, use_rslora=True)
    how = merging(2, "svd", weights=[0.25, 0.75])
    merge_adapters({"a": a, "again": a}, ModelSection(name_or_path=str(base)), how, tmp_path / "out")
    config, first = (json.loads((folder / "adapter_config.json").read_text()) for folder in (tmp_path / "out", a))
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 4, False)
    assert sorted(config["target_modules"]) == sorted(first["target_modules"])
    assert close(deltas(base, tmp_path / "out"), deltas(base, a))


@pytest.fixture(scope="module")
def alike(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of one rank."""
    folder = tmp_path_factory.mktemp("alike")
    return {name: drawn(base, folder / name, seed) for seed, name in enumerate("ab")}


@pytest.fixture(scope="module")
def by_hand(base: Path, alike: dict[str, Path]) -> Any:
    """Both on their base, by PEFT."""
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), alike["a"], adapter_name="a")
    loaded.load_adapter(alike["b"], adapter_name="b")
    return loaded


@pytest.mark.parametrize("method", [name for name in OF_ADAPTERS if name not in ("linear", "svd")])
def test_every_method_of_pefts_gives_what_peft_gives(
    method: str, base: Path, alike: dict[str, Path], by_hand: Any, tmp_path: Path
) -> None:
    how = merging(2, method, density=0.4, weights=[0.6, 0.4], **({"seed": 3} if "dare" in method else {}))
    merge_adapters(alike, ModelSection(name_or_path=str(base)), how, tmp_path / "out")
    torch.manual_seed(3)
    by_hand.add_weighted_adapter(["a", "b"], [0.6, 0.4], method, method, density=0.4, svd_full_matrices=False)
    theirs = get_peft_model_state_dict(by_hand, adapter_name=method, save_embedding_layers=False)
    ours = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("keys", "method", "reason"),
    [
        ({"use_dora": True}, "linear", r"b is no plain LoRA adapter \(it is a DoRA adapter\)"),
        ({"r": 8}, "ties", r"method ties needs one rank, and there are 4 \(a\), 8 \(b\): use linear or ties_svd"),
        ({"rank_pattern": {"q_proj": 2}}, "dare_linear", r"4 \(a\), 2 and 4 \(b\)"),
    ],
)
def test_adapters_that_a_method_cannot_merge(
    keys: dict[str, Any], method: str, reason: str, base: Path, alike: dict[str, Path], tmp_path: Path
) -> None:
    pair = {"a": alike["a"], "b": drawn(base, tmp_path / "b", 2, **keys)}
    with pytest.raises(InputError, match=reason):
        merge_adapters(pair, ModelSection(name_or_path=str(base)), merging(2, method), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- whole models -------------------------------------------------------------------------------------------------


def in_memory(models: list[Path], combine: Callable[[list[Tensor]], Tensor]) -> dict[str, Tensor]:
    states = [load_file(folder / "model.safetensors") for folder in models]
    return {name: combine([state[name].double() for state in states]).to(states[0][name].dtype) for name in states[0]}


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def three(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("three")
    return [model(base, folder / name, seed, request.param) for seed, name in enumerate(("a", "b", "c"))]


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic"])
def test_streamed_is_in_memory(method: str, three: list[Path], tmp_path: Path) -> None:
    folders, dtype = three, next(iter(load_file(three[0] / "model.safetensors").values())).dtype
    asked: dict[str, Path] = dict(zip(("a", "b", "base"), folders, strict=True))
    keys = {"base": "base"} if method == "task_arithmetic" else {}
    if not keys:
        del asked["base"]
    weights = [0.25, 0.75]
    merge_weights(asked, merging(2, method, weights=weights, **keys), tmp_path / "out")
    expected = in_memory(
        folders,
        lambda parts: {
            "linear": lambda: linear(parts[:2], weights),
            "slerp": lambda: slerp(parts[:2], weights),
            "task_arithmetic": lambda: task_arithmetic(parts[:2], weights, parts[2]),
        }[method](),
    )
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert "lm_head.weight" not in found  # tied, as in the first model
    for name, tensor in expected.items():
        assert found[name].dtype == dtype
        assert torch.allclose(found[name].double(), tensor.double(), rtol=2**-7 if dtype == torch.bfloat16 else 1e-6)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_whole_model_alone_is_itself_to_the_bit(method: str, base: Path, tmp_path: Path) -> None:
    """Also where it lies in several files."""
    a = model(base, tmp_path / "a", 1, max_shard_size="40KB")
    b = model(base, tmp_path / "b", 2)
    merge_weights({"a": a, "b": b}, merging(2, method, weights=[1, 0]), tmp_path / "out")
    shards = sorted(file.name for file in a.glob("*.safetensors"))
    assert len(shards) > 1
    for name in (*shards, "model.safetensors.index.json", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (a / name).read_bytes()


def _without(folder: Path, key: str, value: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))


def _tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _other_words(folder: Path) -> None:
    told = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(told.replace('"<|user|>"', '"<|human|>"'))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda folder: _without(folder, "tie_word_embeddings", False), "tie_word_embeddings is True in a, and False"),
        (lambda folder: _without(folder, "architectures", ["X"]), r"architectures is \['LlamaForCausalLM'\] in a"),
        (lambda folder: _without(folder, "quantization_config", {"x": 1}), "b is quantized"),
        (lambda folder: _tensors(folder, lambda state: state.pop("model.norm.weight")), "b has none"),
        (lambda folder: _tensors(folder, lambda state: state.update({"model.norm.weight": torch.ones(3)})), "in b"),
        (_other_words, "the tokenizers of a and b differ, in '<|"),
        (lambda folder: (folder / "model.safetensors").unlink(), "b has no safetensors"),
    ],
)
def test_models_of_another_kind_are_refused(
    fault: Callable[[Path], Any], reason: str, base: Path, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "b")
    fault(tmp_path / "b")
    with pytest.raises(InputError, match=reason):
        merge_weights({"a": base, "b": tmp_path / "b"}, merging(2, "linear"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_scale_a_whole_model_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the weights add up to 1.5"):
        merge_weights({"a": base, "b": base}, merging(2, "linear", weights=[1, 0.5]), tmp_path / "out")
