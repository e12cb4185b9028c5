"""Every adapter: trained through ftlib, loaded with PEFT and transformers alone, merged, interrupted, refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from ftlib.config import Experiment, ModelSection
from ftlib.errors import ConfigError, InputError, TrialError
from ftlib.files.json_files import read_json
from ftlib.models.adapters.build import BUILDERS, add_adapter, empty_model
from ftlib.models.adapters.merge import merge
from ftlib.models.base import count_parameters, load_model
from ftlib.run.directory import Run
from ftlib.training.trainer_callback import TrialCallback
from tests.conftest import ftlib, rows, write_jsonl
from tests.support.reload_adapters import logits
from tests.training.test_trial import cut_at_the_second_report, equal, losses, setting, train, weights

IDS = torch.arange(5, 29).reshape(2, 12)
BIASES = {"attention_bias": True}  # the tiny Llama gets some, for BitFit
ADAPTERS: dict[str, Any] = {
    "lora": {"type": "lora", "r": 4},
    "dora": {"type": "lora", "r": 4, "use_dora": True},
    "rslora": {"type": "lora", "r": 4, "use_rslora": True},
    "lora+": {"type": "lora", "r": 4, "lora_plus_ratio": 4},
    "lora-fa": {"type": "lora", "r": 4, "lora_fa": True},
    "patterns": {"type": "lora", "r": 4, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 4}},
    **{
        name: {"type": "lora", "r": 4, "init_lora_weights": name}
        for name in ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_4", "corda", "eva", "loftq", "mica")
    },
    "random": {"type": "lora", "r": 4, "init_lora_weights": False},
    "pissa-rslora": {
        "type": "lora",
        "r": 4,
        "init_lora_weights": "pissa",
        "use_rslora": True,
        "rank_pattern": {"q_proj": 8},
        "alpha_pattern": {"v_proj": 4},
    },
    "modules": {"type": "lora", "r": 4, "modules_to_save": ["embed_tokens", "lm_head"]},
    "adalora": {"type": "adalora", "init_r": 6, "target_r": 3, "deltaT": 2},
    "ia3": {"type": "ia3"},
    "vera": {"type": "vera", "r": 16},
    "oft": {"type": "oft", "oft_block_size": 8},
    "boft": {"type": "boft"},
    "prefix": {"type": "prefix", "num_virtual_tokens": 4},
    "prefix-mlp": {"type": "prefix", "num_virtual_tokens": 4, "prefix_projection": True},
    "prompt": {"type": "prompt", "num_virtual_tokens": 4},
    "prompt-text": {
        "type": "prompt",
        "num_virtual_tokens": 4,
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "name the colour",
    },
    "p_tuning": {"type": "p_tuning", "num_virtual_tokens": 4},
    "bottleneck": {"type": "bottleneck", "bottleneck_size": 8},
    "fusion": {"type": "fusion"},  # of two that are made for it
    "bitfit": {"type": "bitfit"},
    "layers": {"type": "layers", "num_layers": 1},
    "layers, named": {"type": "layers", "parameters": [r"model\.layers\.1\.mlp", "model.norm"]},
    "layers+head": {"type": "layers", "num_layers": 1, "train_head": True},
    "full": None,
}
# Trained on a plain base alone: they compute from its matrices, or train them. What each run said is in compat.py.
PLAIN_ONLY = ("orthogonal", "olora", "pissa", "pissa_niter_4", "corda", "mica", "pissa-rslora")
PLAIN_ONLY += ("bitfit", "layers", "layers, named", "layers+head", "full")
ALL = [
    (name, quantization)
    for name in ADAPTERS
    for quantization in (None, "nf4", "int8")
    if not (quantization and name in PLAIN_ONLY)
    and (name, quantization) not in [("loftq", None), ("loftq", "int8"), ("dora", "int8")]
]
QUICK = [  # every type once, every quantization, and the LoRA that starts from its base
    *((name, None) for name in ("dora", "pissa-rslora", "adalora", "vera", "boft", "prefix", "p_tuning")),
    *((name, None) for name in ("bitfit", "layers", "fusion", "modules")),
    *((name, "nf4") for name in ("loftq", "ia3", "oft", "prompt", "bottleneck")),
    ("lora", "int8"),
]


def with_adapter(tree: dict[str, Any], name: str, quantization: str | None = None) -> dict[str, Any]:
    tree["adapter"] = dict(ADAPTERS[name]) if ADAPTERS[name] else None
    if name == "fusion":
        tree["adapter"]["adapters"] = {key: str(bottleneck(tree, seed)) for seed, key in enumerate(("one", "other"))}
    tree["model"] |= {"quantization": quantization, "config": BIASES if name == "bitfit" else {}}
    tree["train"] |= {"max_steps": 5, "per_device_train_batch_size": 4}
    return tree


def bottleneck(tree: dict[str, Any], seed: int, **keys: Any) -> Path:
    """A bottleneck adapter with random weights, on the base of an experiment."""
    folder = Path(tree["storage"]) / f"bottleneck-{seed}"
    if not folder.is_dir():
        torch.manual_seed(seed)
        section = Experiment.parse({**tree, "adapter": {"type": "bottleneck", "bottleneck_size": 4 + seed, **keys}})
        adapted = add_adapter(load_model(section.model), section.adapter)
        for part in adapted.parameters():
            if part.requires_grad:
                part.data = 0.1 * torch.randn_like(part)
        adapted.save_pretrained(folder)
    return folder


def trained(tree: dict[str, Any], folder: Path) -> tuple[Path, torch.Tensor]:
    """(the trial's directory, what the trained model itself computes for IDS)."""
    kept: list[torch.Tensor] = []
    finish = TrialCallback.finish

    def listen(journal: TrialCallback) -> None:
        finish(journal)
        kept.append(logits(journal.trainer.model, IDS))

    done = setting(tree, folder)
    with mock.patch.object(TrialCallback, "finish", listen):
        train(done)
    return Run(Path(done.run)).trial("000").path, kept[0]


def all_come_back(cases: list[tuple[str, str | None]], tree: dict[str, Any], tmp_path: Path) -> None:
    """Trains each, merges what can be, and compares both with what another process loads."""
    held = {}
    for name, quantization in cases:
        trial, computed = trained(with_adapter(tree, name, quantization), tmp_path / f"{name}-{quantization}")
        save_file({"ids": IDS}, trial / "probe.safetensors")
        section = Experiment.parse(tree)
        if section.adapter is not None and section.adapter.mergeable:
            merge(trial / "adapter", section.model, trial / "merged")
        held[name, quantization] = trial, computed
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.support.reload_adapters",
        *(str(trial) for trial, _ in held.values()),
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    wrong = {}
    for case, (trial, computed) in held.items():
        found = load_file(trial / "reloaded.safetensors")
        off = {name: (part - computed).abs().max().item() for name, part in found.items()}
        # LLM.int8 rounds activations too, so a merged matrix, which is plain, cannot compute the same.
        allowed = {"reloaded": 1e-5, "merged": 5e-2 if case[1] == "int8" else 1e-4}
        wrong |= {(*case, name): value for name, value in off.items() if not value <= allowed[name]}
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings=:UserWarning")  # `modules` unties them
def test_what_was_trained_is_what_comes_back(tree: dict[str, Any], tmp_path: Path) -> None:
    assert {(ADAPTERS[name] or {}).get("type") for name, _ in QUICK} == {*BUILDERS}
    all_come_back(QUICK, tree, tmp_path)


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings=:UserWarning")
def test_what_was_trained_is_what_comes_back_for_every_combination(tree: dict[str, Any], tmp_path: Path) -> None:
    all_come_back(ALL, tree, tmp_path)


@pytest.mark.matrix
def test_classifiers_come_back_for_every_combination(tree: dict[str, Any], tmp_path: Path) -> None:
    labelled = [{"text": row["prompt"], "label": row["completion"].split()[2]} for row in rows(80)]
    tree["data"]["train"] = str(write_jsonl(tmp_path / "labelled.jsonl", labelled))
    tree["method"] = {"type": "classify"}
    with mock.patch("tests.models.test_adapters.merge"):
        all_come_back(ALL, tree, tmp_path)


def interrupted_is_uninterrupted(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["train"] |= {"max_steps": 9, "eval_strategy": "steps", "eval_steps": 3, "learning_rate": 1e-3}
    whole, cut = setting(tree, tmp_path / "whole"), setting(tree, tmp_path / "cut")
    train(whole)
    heard = cut_at_the_second_report(cut)
    reports = train(cut)
    assert reports[0]["step"] > heard[-1]["step"]
    assert losses(cut) == losses(whole)
    assert equal(weights(cut), weights(whole))


@pytest.mark.parametrize("name", ["adalora", "prefix-mlp"])
def test_interrupted_and_resumed_is_uninterrupted(name: str, tree: dict[str, Any], tmp_path: Path) -> None:
    interrupted_is_uninterrupted(with_adapter(tree, name), tmp_path)


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "quantization"), [case for case in ALL if case[1] != "int8"])
def test_every_adapter_resumes(name: str, quantization: str | None, tree: dict[str, Any], tmp_path: Path) -> None:
    interrupted_is_uninterrupted(with_adapter(tree, name, quantization), tmp_path)


def adapted(tree: dict[str, Any]) -> Any:
    experiment = Experiment.parse(tree)
    return add_adapter(load_model(experiment.model), experiment.adapter)


@pytest.mark.parametrize("name", ["dora", "patterns", "full", *(n for n in ADAPTERS if n in BUILDERS and n != "lora")])
def test_a_shape_counts_as_the_model_does(name: str, tree: dict[str, Any]) -> None:
    experiment = Experiment.parse(with_adapter(tree, name))
    shape = empty_model(experiment.model, experiment.adapter)
    assert count_parameters(shape) == pytest.approx(count_parameters(adapted(tree)), rel=5e-3)  # AdaLoRA's counters


def test_the_weights_that_are_named_are_trained_and_no_others(tree: dict[str, Any]) -> None:
    names = {name for name, part in adapted(with_adapter(tree, "layers, named")).named_parameters()
             if part.requires_grad}  # fmt: skip
    assert names == {f"model.layers.1.mlp.{one}_proj.weight" for one in ("gate", "up", "down")} | {"model.norm.weight"}
    tree["adapter"]["parameters"] = ["layers.1"]
    with pytest.raises(ConfigError, match=r"adapter.parameters: no weight's name begins as 'layers.1'. Names here:"):
        adapted(tree)


def test_four_bit_weights_are_counted_one_by_one(tree: dict[str, Any]) -> None:
    plain = count_parameters(adapted(with_adapter(tree, "lora")))
    assert count_parameters(adapted(with_adapter(tree, "lora", "nf4"))) == plain


@pytest.mark.parametrize("name", [name for name, value in ADAPTERS.items() if value and value["type"] != "lora"])
def test_a_fresh_adapter_trains_little(name: str, tree: dict[str, Any]) -> None:
    model = adapted(with_adapter(tree, name))
    total, trained = count_parameters(model)
    assert 0 < trained < (total if name.startswith("layers") else total / 2)


def test_a_fresh_bottleneck_computes_what_its_base_does(tree: dict[str, Any]) -> None:
    section = Experiment.parse(tree).model
    base = logits(load_model(section), IDS)
    model = adapted(with_adapter(tree, "bottleneck"))
    assert sum("bottleneck_up" in name for name, _ in model.named_modules() if name.endswith(".default")) == 4
    assert torch.equal(logits(model, IDS), base)
    for name, part in model.named_parameters():
        if "bottleneck_up" in name:
            torch.nn.init.ones_(part)
    assert not torch.allclose(logits(model, IDS), base)
    with model.disable_adapter():
        assert torch.equal(logits(model, IDS), base)


def test_a_fresh_prefix_is_words_before_the_text(tree: dict[str, Any]) -> None:
    """What the base computes behind those words: the start, the mask and the positions are all the base's own."""
    words = torch.tensor([[40, 41, 42, 43]])
    with mock.patch.object(torch, "randint", return_value=words):
        model = adapted(with_adapter(tree, "prefix"))
    base = load_model(Experiment.parse(tree).model)
    behind = logits(base, torch.cat([words.expand(len(IDS), -1), IDS], dim=1))[:, words.shape[1] :]
    assert (logits(model, IDS) - behind).abs().max() < 1e-5
    assert not adapted(with_adapter(tree, "prefix-mlp")).get_prompt(1).layers[0].keys.any()


def test_loftq_makes_up_for_the_quantization(tree: dict[str, Any]) -> None:
    plain = logits(load_model(Experiment.parse(tree).model), IDS)
    tree["adapter"] = {"type": "lora", "r": 16, "lora_alpha": 32}
    tree["model"]["quantization"] = "nf4"
    off = {}
    for init in (True, "loftq"):
        tree["adapter"]["init_lora_weights"] = init
        off[init] = (logits(adapted(tree), IDS) - plain).abs().mean()
    assert off["loftq"] < off[True] / 2


def test_lora_plus_gives_b_its_own_rate_also_after_a_resume(tree: dict[str, Any], tmp_path: Path) -> None:
    seen: list[list[float]] = []
    finish = TrialCallback.finish

    def listen(journal: TrialCallback) -> None:
        seen.append([group["initial_lr"] for group in journal.trainer.optimizer.param_groups if group["params"]])
        finish(journal)

    tree = with_adapter(tree, "lora+")
    tree["adapter"]["init_lora_weights"] = "pissa"  # whose base must be the same again
    with mock.patch.object(TrialCallback, "finish", listen):
        interrupted_is_uninterrupted(tree, tmp_path)
    assert seen == [[1e-3, 4e-3]] * 2


def test_lora_fa_leaves_a_as_it_was(tree: dict[str, Any], tmp_path: Path) -> None:
    trial, _ = trained(with_adapter(tree, "lora-fa"), tmp_path)
    torch.manual_seed(42)
    fresh = {name: part for name, part in adapted(tree).state_dict().items() if "lora_A" in name}
    saved = load_file(trial / "adapter" / "adapter_model.safetensors")
    for name, part in fresh.items():
        assert torch.equal(saved[name.replace(".default", "")], part)


def test_adalora_lowers_its_rank_to_the_target(tree: dict[str, Any], tmp_path: Path) -> None:
    trial, _ = trained(with_adapter(tree, "adalora"), tmp_path)
    saved = load_file(trial / "adapter" / "adapter_model.safetensors")
    values = [part for name, part in saved.items() if "lora_E" in name]
    assert sum(int(part.count_nonzero()) for part in values) == 3 * len(values)
    assert not (trial / "adapter" / "adapter_state.safetensors").exists()


def test_adalora_needs_steps_to_lower_its_rank_in(tree: dict[str, Any], tmp_path: Path) -> None:
    tree = with_adapter(tree, "adalora")
    tree["adapter"] = {**ADAPTERS["adalora"], "tinit": 3, "tfinal": 2}
    with pytest.raises(TrialError, match=r"adapter.tinit \(3\) and adapter.tfinal \(2\) leave none of the 5 steps"):
        train(setting(tree, tmp_path))


def test_what_moved_its_base_is_published_for_the_untouched_base(tree: dict[str, Any], tmp_path: Path) -> None:
    trial, _ = trained(with_adapter(tree, "pissa"), tmp_path)
    config = read_json(trial / "adapter" / "adapter_config.json")
    assert (config["r"], config["init_lora_weights"]) == (8, True)
    kept = read_json(trial / "checkpoint" / "adapter_config.json")  # which goes on from where it was
    assert (kept["r"], kept["init_lora_weights"]) == (4, "pissa")


@pytest.mark.parametrize("name", ["lora", "bitfit", "prompt"])
def test_an_adapter_that_learned_nothing_is_no_result(name: str, tree: dict[str, Any], tmp_path: Path) -> None:
    tree = with_adapter(tree, name)
    tree["train"] |= {"learning_rate": 1e-45, "lr_scheduler_type": "constant", "adam_epsilon": 1e30}
    with pytest.raises(TrialError, match="the adapter is empty .*: raise train.learning_rate"):
        train(setting(tree, tmp_path))


def test_the_base_of_a_quantized_trial_is_quantized_too(tree: dict[str, Any], tmp_path: Path) -> None:
    tree = with_adapter(tree, "lora", "nf4")
    tree["train"]["learning_rate"] = 1e-12
    done = setting(tree, tmp_path, baseline=True)
    report = train(done)[-1]
    base = Run(Path(done.run)).trial("base")
    assert base.state == "finished", base.status
    assert base.metrics()[0]["eval_loss"] == pytest.approx(report["eval_loss"], rel=1e-6)


def test_a_quantized_trial_keeps_its_adapter_in_float32(tree: dict[str, Any], tmp_path: Path) -> None:
    trial, _ = trained(with_adapter(tree, "lora", "nf4"), tmp_path)
    saved = load_file(trial / "adapter" / "adapter_model.safetensors")
    assert {part.dtype for part in saved.values()} == {torch.float32}
    assert any(not torch.equal(part, part.bfloat16().float()) for part in saved.values())


REFUSED = [
    ({"type": "bitfit"}, "LlamaForCausalLM has no biases to train: use adapter.type: ia3"),
    ({"type": "layers", "num_layers": 9}, "num_layers is 9, but the model has 2"),
    ({"type": "lora", "target_modules": ["q_prj"]}, "adapter.target_modules: .*q_prj.* Did you mean 'q_proj'"),
    ({"type": "bottleneck", "target_modules": ["nothing"]}, "adapter.target_modules: .*Linear layers here: down_proj"),
    ({"type": "lora", "init_lora_weights": "eva"}, "starts from tokenized training rows"),
    ({"type": "lora", "init_lora_weights": "loftq"}, "use quantization: nf4"),
    ({"type": "boft", "boft_block_size": 7}, "^adapter: "),
]


@pytest.mark.parametrize(("adapter", "message"), REFUSED)
def test_what_a_model_cannot_do_is_one_sentence(adapter: dict[str, Any], message: str, tree: dict[str, Any]) -> None:
    tree["adapter"] = adapter
    with pytest.raises(ConfigError, match=message) as caught:
        adapted(tree)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("adapter", [None, {"type": "layers"}])
def test_frozen_weights_are_not_trained(adapter: Any, tree: dict[str, Any]) -> None:
    section = ModelSection.model_validate({**tree["model"], "quantization": "nf4"})
    tree["adapter"] = adapter
    with pytest.raises(ConfigError, match="model.quantization freezes: use adapter.type: lora"):
        add_adapter(load_model(section), Experiment.parse(tree).adapter)


def test_a_fusion_weighs_what_its_adapters_add(tree: dict[str, Any]) -> None:
    """By hand, at one layer: a softmax over adapters, of the query of what the layer gives."""
    section = Experiment.parse(with_adapter(tree, "fusion"))
    adapted = add_adapter(load_model(section.model), section.adapter)
    name = "model.layers.1.mlp.down_proj"
    layer, x = adapted.base_model.model.get_submodule(name), torch.randn(2, 3, 64)
    hidden, added = layer.base_layer(x), []
    for folder in section.adapter.adapters.values():  # type: ignore[union-attr]
        alone = load_model(section.model)
        held = PeftModel.from_pretrained(alone, folder).base_model.model.get_submodule(name)
        added.append(held(x) - hidden)
    query = layer.fusion_query["default"](hidden)
    scores = torch.stack([(query * layer.fusion_key["default"](one)).sum(-1) for one in added])
    shares = scores.softmax(0)
    value = torch.full((32, 32), 1e-6).fill_diagonal_(1.0)
    expected = hidden + sum(share.unsqueeze(-1) * (one @ value.T) for share, one in zip(shares, added, strict=True))
    assert torch.allclose(layer(x), expected, atol=1e-6)
    names = [key for key, part in adapted.named_parameters() if part.requires_grad]
    assert {key.split(".fusion_")[1].split(".")[0] for key in names} == {"query", "key", "value"}


def test_adapters_that_cannot_be_fused_are_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    lora, _ = trained(with_adapter(tree, "lora"), tmp_path)
    one, other = bottleneck(tree, 0), bottleneck(tree, 1, target_modules=["down_proj"])
    for folder, reason in (
        (lora / "adapter", "adapter.adapters.b: .* is no bottleneck adapter, and only such are fused"),
        (tmp_path, "adapter.adapters.b: .* is no bottleneck adapter"),
        (other, "adapter.adapters.b: it stands after other layers than a"),
    ):
        fusion = {"type": "fusion", "adapters": {"a": str(one), "b": str(folder)}}
        section = Experiment.parse({**tree, "adapter": fusion})
        with pytest.raises(ConfigError, match=reason):
            add_adapter(load_model(section.model), section.adapter)


def test_merge_says_what_it_cannot(tree: dict[str, Any], tmp_path: Path) -> None:
    trial, _ = trained(with_adapter(tree, "bottleneck"), tmp_path)
    section = Experiment.parse(tree).model
    with pytest.raises(InputError, match="a bottleneck adapter is not linear"):
        merge(trial / "adapter", section, tmp_path / "out")
    with pytest.raises(InputError, match="holds no PEFT adapter"):
        merge(tmp_path, section, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_merges_a_trial_and_a_name(tree: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftlib.registry import registry

    trial, computed = trained(with_adapter(tree, "dora"), tmp_path)
    run = Run(trial.parent.parent)
    registry.register(run, run.trial("000"), "merge-me")
    for reference, out in ((str(trial / "adapter"), "a"), ("merge-me", "b"), ("merge-me@1", "c")):
        status, output = ftlib("merge", reference, tmp_path / out)
        assert status == 0, output
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / out)
        assert (logits(merged, IDS) - computed).abs().max() < 1e-4
        assert AutoTokenizer.from_pretrained(tmp_path / out).chat_template
    assert ftlib("merge", "merge-me", tmp_path / "a") == (
        2,
        f"error: {tmp_path}/a is there already: name a folder that is not.\n",
    )
    status, output = ftlib("merge", "merge-mee", tmp_path / "d")
    assert status == 2
    assert "Did you mean 'merge-me'" in output
