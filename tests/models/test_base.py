from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.config import Experiment, ModelSection
from ftlib.errors import ConfigError
from ftlib.methods.arguments import check_arguments
from ftlib.models.adapters.build import add_adapter
from ftlib.models.base import (
    bare_model,
    count_parameters,
    fingerprint,
    identity,
    load_model,
    load_tokenizer,
    new_tokens,
)


def test_counts_without_reading_weights_are_those_with(tree: dict[str, Any]) -> None:
    section = Experiment.parse(tree).model
    shape = bare_model(section)
    assert next(shape.parameters()).is_meta
    assert count_parameters(shape) == count_parameters(load_model(section))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("head", ["causal_lm", "sequence_classification"])
def test_layers_are_quantized_and_heads_are_not(quantization: Any, head: Any, tree: dict[str, Any]) -> None:
    tree["model"]["quantization"] = quantization
    model = load_model(Experiment.parse(tree).model, head)
    small = torch.uint8 if quantization == "nf4" else torch.int8
    assert model.model.layers[0].mlp.up_proj.weight.dtype == small
    assert (model.lm_head if head == "causal_lm" else model.score).weight.dtype == torch.float32
    if quantization == "nf4":
        config = model.config.quantization_config
        assert (config.bnb_4bit_use_double_quant, config.bnb_4bit_compute_dtype) == (True, torch.float32)


def test_an_evaluation_leaves_four_bit_weights_as_they_are(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes packs them on CPUs with AVX512-BF16, and trains nothing behind them from there on."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    section = Experiment.parse(tree).model
    wide = section.model_copy(update={"init": "random", "config": {"hidden_size": 64, "head_dim": 16}})
    load_model(wide).save_pretrained(tmp_path)
    model = load_model(section.model_copy(update={"name_or_path": str(tmp_path), "quantization": "nf4"}))
    ids = torch.arange(5, 25).reshape(1, 20)

    def gradient() -> torch.Tensor:
        rows = model.get_input_embeddings()(ids).detach().requires_grad_()
        model.train()(inputs_embeds=rows).logits.sum().backward()
        assert rows.grad is not None
        return rows.grad

    before = gradient()
    with torch.no_grad():
        model.eval()(input_ids=ids)
    assert torch.equal(gradient(), before)


def test_quantization_without_bitsandbytes_says_what_to_install(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree["model"]["quantization"] = "nf4"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes: pip install 'ftlib\[qlora\]'"):
        load_model(Experiment.parse(tree).model)


def test_random_weights_come_from_the_seed_and_the_config(tree: dict[str, Any]) -> None:
    tree.update(model={**tree["model"], "init": "random", "config": {"num_hidden_layers": 1}}, adapter=None)
    section = Experiment.parse(tree).model
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(load_model(section).state_dict())
    name = "model.layers.0.mlp.up_proj.weight"
    assert "model.layers.1.mlp.up_proj.weight" not in models[0]
    assert torch.equal(models[0][name], models[1][name])
    assert not torch.equal(models[0][name], models[2][name])


@pytest.mark.parametrize(("key", "value"), [("use_dora", True), ("use_rslora", True), ("init_lora_weights", "pissa")])
def test_lora_variants_reach_peft(key: str, value: Any, tree: dict[str, Any]) -> None:
    tree["adapter"][key] = value
    experiment = Experiment.parse(tree)
    model = add_adapter(load_model(experiment.model), experiment.adapter)
    assert getattr(model.peft_config["default"], key) == value


def test_the_fingerprint_is_of_the_weights(base: Path, tmp_path: Path, tree: dict[str, Any]) -> None:
    import shutil

    section = Experiment.parse(tree).model
    known = identity(section, load_model(section))
    assert known == {"name_or_path": str(base), "revision": None, "fingerprint": fingerprint(base)}
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    assert fingerprint(copy) == fingerprint(base)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert fingerprint(copy) != fingerprint(base)


def test_pickled_weights_are_not_loaded(base: Path, tmp_path: Path, tree: dict[str, Any]) -> None:
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(base, folder)
    state = load_model(Experiment.parse(tree).model).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    tree["model"]["name_or_path"] = str(folder)
    with pytest.raises(ConfigError, match="model.name_or_path"):
        load_model(Experiment.parse(tree).model)


def test_a_missing_model_names_the_nearest_folder(base: Path, tree: dict[str, Any]) -> None:
    tree["model"]["name_or_path"] = f"{base}x"
    with pytest.raises(ConfigError, match=f"Did you mean '{base.name}'"):
        load_tokenizer(Experiment.parse(tree).model)


def special(base: Path, **tokens: Any) -> ModelSection:
    return ModelSection.model_validate({"name_or_path": str(base), "special_tokens": tokens})


def test_special_tokens_take_the_place_of_the_tokenizers_own(base: Path) -> None:
    tokenizer = load_tokenizer(special(base, eos_token="<|user|>", pad_token="<|system|>"))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|user|>", "<|system|>")
    assert len(tokenizer) == len(load_tokenizer(special(base)))
    assert new_tokens(special(base, eos_token="<|user|>")) == []


def test_new_tokens_get_rows_and_are_saved(base: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    from tests.training.test_trial import setting, train, weights

    tree["adapter"] = None
    tokens = {"eos_token": "<|stop|>", "additional_special_tokens": ["<|tool|>"], "tokens": ["colour"]}
    tree["model"]["special_tokens"] = tokens
    section = special(base, **tokens)
    assert new_tokens(section) == ["<|stop|>", "<|tool|>", "colour"]
    count = len(load_tokenizer(special(base)))
    assert bare_model(section).get_input_embeddings().weight.shape[0] == count + 3
    done = setting(tree, tmp_path)
    train(done)
    assert weights(done)["model.embed_tokens.weight"].shape[0] == count + 3
    folder = Path(done.run) / "trials" / "000" / "model"
    saved = load_tokenizer(ModelSection(name_or_path=str(folder)))
    assert (saved.eos_token, saved.eos_token_id, len(saved)) == ("<|stop|>", count, count + 3)
    assert load_model(ModelSection(name_or_path=str(folder))).config.eos_token_id == count
    assert len(saved("colour")["input_ids"]) == 1


def test_a_new_token_is_refused_where_no_embedding_is_trained(tree: dict[str, Any]) -> None:
    tree["model"]["special_tokens"] = {"tokens": ["colour"]}
    with pytest.raises(ConfigError, match="'colour' is new to the vocabulary, and adapter.type 'lora'"):
        check_arguments(Experiment.parse(tree))
    tree["model"]["special_tokens"] = {"eos_token": "<|user|>"}
    check_arguments(Experiment.parse(tree))
