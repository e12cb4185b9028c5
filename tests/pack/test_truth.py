"""Certificate 2: trial k of a pack has the losses that TRL's (or transformers') trainer gives the same configuration
alone: same seed, same order of the data, same schedule, 50 steps."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ftlib.training.recorder import Record
from tests.training import test_trial as solo

from ..conftest import rows, write_jsonl
from ..methods.conftest import labelled, pairs
from .conftest import losses, pack_of, train, trial

# Of SFT always; of the others in `make test-all`, and some in `make test`: in each point's second epoch.
STEPS, SOME = 50, 16
PAIRS, JUDGED = "pairs", "judged"
OPENING = "The stone is red. The lamp is blue. The horse is pink. "  # of every row: it is computed once a batch
LETTERS = "ABCDEFGHJKLMNOPQRSUVXYZ"  # that the tokenizer has no merges for: 31 of them and an end are half a block


def opened(rows: list[dict[str, Any]], key: str = "prompt") -> list[dict[str, Any]]:
    return [{**row, key: OPENING + row[key]} for row in rows]


def document(number: int) -> dict[str, str]:
    return {"text": LETTERS[:20] + "".join(random.Random(number).choices(LETTERS, k=11))}


DATA: dict[str, list[Any]] = {
    "rows": opened(rows(80)),
    PAIRS: opened(pairs(80)),
    JUDGED: [
        {"prompt": row["prompt"], "completion": row["chosen" if n % 3 else "rejected"], "label": bool(n % 3)}
        for n, row in enumerate(opened(pairs(80)))
    ],
    "labelled": opened(labelled(80), "text"),
    "text": [document(n) for n in range(160)],
}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "sft": ({"type": "sft"}, "rows"),
    "pretrain": ({"type": "pretrain"}, "text"),
    "dpo": ({"type": "dpo"}, PAIRS),
    "kto": ({"type": "kto"}, JUDGED),
    "orpo": ({"type": "orpo"}, PAIRS),
    "simpo": ({"type": "simpo", "cpo_alpha": 0.2, "label_smoothing": 0.1}, PAIRS),
    "classify": ({"type": "classify", "class_weights": "balanced", "label_smoothing": 0.1}, "labelled"),
    "reward": ({"type": "reward", "center_rewards_coefficient": 0.01}, PAIRS),
    "distill": ({"type": "distill", "kind": "logit", "temperature": 2.0, "alpha": 0.7}, "rows"),
}
MORE = ("pretrain", "kto", "orpo", "simpo", "classify", "reward")
POINTS: list[dict[str, Any]] = [
    {"adapter.r": 8, "train.learning_rate": 3e-3, "train.seed": 3},
    {
        "adapter.r": 2,
        "train.learning_rate": 1e-2,
        "train.per_device_train_batch_size": 5,
        "train.weight_decay": 0.1,
        "train.layer_lr_decay": 0.5,
        "train.lr_scheduler_type": "cosine_with_min_lr",
        "train.lr_scheduler_kwargs": {"min_lr": 3e-4},
    },
    {"adapter.r": 4, "train.gradient_accumulation_steps": 3, "train.warmup_steps": 0.2, "train.max_grad_norm": 0.05},
]


def experiment(tree: dict[str, Any], case: str, folder: Path, steps: int = SOME) -> dict[str, Any]:
    method, data = CASES[case]
    tree["method"] = dict(method)
    tree["data"]["train"] = str(write_jsonl(folder / f"{data}.jsonl", DATA[data]))
    tree["train"].update(max_steps=steps, logging_steps=1, eval_strategy="steps", eval_steps=steps // 2)
    tree["train"]["learning_rate"] = 5e-3
    if case == "distill":
        tree["method"]["teacher"] = str(teacher(tree["model"]["name_or_path"], folder / "teacher"))
    return tree


def teacher(base: str, folder: Path) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    for part in model.parameters():
        part.data += 0.05 * torch.randn_like(part)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def both(
    tree: dict[str, Any], folder: Path, points: list[dict[str, Any]], shares: bool = True
) -> list[tuple[Any, Any]]:
    """Each point trained by its trainer and in a pack of all: (the trial alone, the trial of the pack)."""
    alone = solo.setting(tree, folder / "solo")
    for number, point in enumerate(points):
        solo.train(alone, f"{number:03d}", point)
    packed = solo.setting(tree, folder / "pack")
    pack = pack_of(packed)
    assert train(pack, {f"{number:03d}": point for number, point in enumerate(points)}) == {}
    splits = {split for (split, *_), block in pack._blocks.items() if block.shares}
    assert splits == ({"train", "eval"} if shares else set())  # what rows begin with alike was computed once
    return [(trial(alone, name), trial(packed, name)) for name in (f"{number:03d}" for number in range(len(points)))]


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        ("sft", STEPS),
        *((case, SOME) for case in CASES if case != "sft"),
        *(pytest.param(case, STEPS, marks=pytest.mark.matrix) for case in CASES if case != "sft"),
    ],
)
def test_a_trial_of_a_pack_is_the_trial_alone(case: str, steps: int, tree: dict[str, Any], tmp_path: Path) -> None:
    points = POINTS
    if case == "kto":  # at a rate of 1e-2 it is chaotic: from step 25 on, rounding doubles with every step
        points = [{**point, "train.learning_rate": 2e-3} for point in POINTS]
    for alone, packed in both(experiment(tree, case, tmp_path, steps), tmp_path, points):
        assert losses(packed) == pytest.approx(losses(alone), rel=1e-4)
        evaluations = [row for row in alone.metrics() if "eval_loss" in row]
        ours = [row for row in packed.metrics() if "eval_loss" in row]
        assert [row["step"] for row in ours] == [row["step"] for row in evaluations]
        for mine, theirs in zip(ours, evaluations, strict=True):
            shared = {key for key in mine if key.startswith("eval_")} - {"eval_runtime"}
            assert shared <= theirs.keys()
            parts = "eval_loss_parts"
            assert mine[parts] == pytest.approx(theirs[parts], rel=1e-4, abs=1e-5)
            shared -= {parts}
            assert {k: mine[k] for k in shared} == pytest.approx({k: theirs[k] for k in shared}, rel=1e-4, abs=1e-5)
            for key in ("epoch", "progress"):
                assert mine[key] == theirs[key]
        learned = load_file(packed.weights / "adapter_model.safetensors")
        theirs_learned = load_file(alone.weights / "adapter_model.safetensors")
        assert learned.keys() == theirs_learned.keys()
        for name, tensor in learned.items():
            assert torch.allclose(tensor, theirs_learned[name], atol=2e-3), name


def test_layers_below_the_first_adapter_are_computed_once(tree: dict[str, Any], tmp_path: Path) -> None:
    """Trials that see one batch, of sequences of several lengths, with adapters in the upper layer alone."""
    tree = experiment(tree, "sft", tmp_path)
    tree["adapter"]["target_modules"] = r".*layers\.1\..*_proj"
    tree["train"].update(max_steps=4, eval_steps=2)
    points = [{"train.learning_rate": rate} for rate in (3e-3, 1e-2)]
    for alone, packed in both(tree, tmp_path, points):
        for key in ("loss", "eval_loss"):
            assert losses(packed, key) == pytest.approx(losses(alone, key), rel=1e-4)


@pytest.mark.parametrize("case", ["sft", "dpo", *(pytest.param(case, marks=pytest.mark.matrix) for case in MORE)])
def test_without_held_out_rows_the_weights_of_the_end_are_kept(case: str, tree: dict[str, Any], tmp_path: Path) -> None:
    """As `ftlib train` may be asked: trials of a sweep are compared."""
    experiment(tree, case, tmp_path, steps=6)["data"]["eval_split"] = 0
    alone, packed = (solo.setting(tree, tmp_path / engine, metric="train_loss") for engine in ("trainer", "pack"))
    solo.train(alone)
    assert train(pack_of(packed, slots=1), {"000": {}}) == {}
    ours, theirs = trial(packed, "000"), trial(alone, "000")
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-4)
    assert losses(ours, "train_loss") == losses(ours)[-1:]
    assert (ours.manifest["step"], ours.manifest["metrics"]) == (6, {})
    assert not any("eval_loss" in row for row in ours.metrics())


@pytest.mark.parametrize("packed", [False, True])
def test_evaluations_within_an_epoch_and_checkpoints_between(
    packed: bool, tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 rows by 8 are 8 steps an epoch; of two epochs, the second begins after a kill at its first evaluation."""
    kept: list[str] = []
    keep = Record.keep
    monkeypatch.setattr(Record, "keep", lambda self, staged: (kept.append(staged.name), keep(self, staged)))
    tree["train"] |= {"eval_strategy": "epoch", "evals_per_epoch": 3, "save_steps": 2, "num_train_epochs": 2}
    made = solo.setting(tree, tmp_path)
    if packed:
        train(pack_of(made), {"000": {}}, lambda pack, tick: pack.leave("000") if tick == 9 else None)
        train(pack_of(made), {"000": {}})
    else:
        solo.train(made)
    evaluated = [row["step"] for row in trial(made, "000").evaluations("eval_loss")]
    assert evaluated == [3, 6, 8, 11, 14, 16]
    assert sorted(set(kept), key=lambda name: int(name.rpartition("-")[2])) == [
        f"checkpoint-{step}" for step in (2, 4, 10, 12)
    ]


SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
PLAIN = ("sigmoid_norm", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop", "sft")
DPO_LOSSES: list[dict[str, Any]] = [
    *({"loss_type": [name], "label_smoothing": 0.1} for name in SMOOTHED),
    *({"loss_type": [name]} for name in PLAIN),
    {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
    *({"f_divergence_type": kind} for kind in ("forward_kl", "js_divergence", "alpha_divergence")),
]


@pytest.mark.matrix
@pytest.mark.parametrize("keys", DPO_LOSSES, ids=lambda keys: "-".join(map(str, keys.values())))
def test_every_loss_of_dpo_is_trls(keys: dict[str, Any], tree: dict[str, Any], tmp_path: Path) -> None:
    experiment(tree, "dpo", tmp_path)["method"].update(keys)
    tree["train"].update(max_steps=8, eval_steps=8)
    ((alone, packed),) = both(tree, tmp_path, [{}])
    assert losses(packed) == pytest.approx(losses(alone), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_base(quantization: str, tree: dict[str, Any], tmp_path: Path) -> None:
    experiment(tree, "sft", tmp_path)["model"]["quantization"] = quantization
    tree["train"].update(max_steps=10, eval_steps=10)
    for alone, packed in both(tree, tmp_path, POINTS[:2]):
        assert losses(packed) == pytest.approx(losses(alone), rel=1e-2)  # PEFT rounds to the base's dtype elsewhere


def test_a_bfloat16_base(tree: dict[str, Any], tmp_path: Path) -> None:
    experiment(tree, "sft", tmp_path)["model"]["dtype"] = "bfloat16"
    tree["train"].update(max_steps=10, eval_steps=10, bf16=False)
    for alone, packed in both(tree, tmp_path, POINTS[:2]):
        assert losses(packed) == pytest.approx(losses(alone), rel=1e-2)
        saved = load_file(packed.weights / "adapter_model.safetensors")
        assert {part.dtype for part in saved.values()} == {torch.float32}


def test_activation_checkpointing_computes_the_same(tree: dict[str, Any], tmp_path: Path) -> None:
    tree = experiment(tree, "sft", tmp_path)
    tree["adapter"]["lora_dropout"] = 0.2
    tree["train"].update(max_steps=8, eval_steps=8)
    plain = solo.setting(tree, tmp_path / "plain")
    tree["train"]["activation_checkpointing"] = True
    again = solo.setting(tree, tmp_path / "checkpointed")
    for made in (plain, again):
        assert train(pack_of(made), {"000": POINTS[0], "001": POINTS[1]}) == {}
    assert losses(trial(again, "001")) == pytest.approx(losses(trial(plain, "001")), rel=1e-6)


def test_a_large_vocabulary_is_scored_a_trial_at_a_time(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = experiment(tree, "distill", tmp_path)
    tree["train"].update(max_steps=8, eval_steps=8)
    whole = solo.setting(tree, tmp_path / "whole")
    train(pack_of(whole), {"000": POINTS[0], "001": POINTS[1]})
    monkeypatch.setattr("ftlib.pack.frozen_base.LOGITS_AT_ONCE", 1)
    parts = solo.setting(tree, tmp_path / "parts")
    train(pack_of(parts), {"000": POINTS[0], "001": POINTS[1]})
    assert losses(trial(parts, "001")) == pytest.approx(losses(trial(whole, "001")), rel=1e-6)


def test_teacher_and_reference_are_computed_once(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftlib.pack.frozen_base import FrozenBase

    made = solo.setting(experiment(tree, "dpo", tmp_path), tmp_path / "dpo")
    asked: list[int] = []
    sums = FrozenBase._sums
    monkeypatch.setattr(FrozenBase, "_sums", lambda self, tokens: asked.append(len(tokens)) or sums(self, tokens))
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    train(pack_of(made), {"000": {"train.max_steps": 2}, "001": {"train.max_steps": 2, "method.beta": 0.3}})
    first = len(asked)
    train(pack_of(made), {"002": {"train.max_steps": 2}})
    assert (
        first == len(asked) == 4 + 4
    )  # of the 16 rows that two steps meet and of 16 held-out rows, four at a time, once


def test_the_student_learns_from_the_solo_trials_cache(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    tree = experiment(tree, "distill", tmp_path)
    tree["train"]["max_steps"] = 2
    tree["train"]["eval_steps"] = 2
    alone = solo.setting(tree, tmp_path / "solo")
    solo.train(alone, "000", {})
    kept = sorted(path.name for path in (tmp_path / "home/cache/teacher").glob("[!.]*"))
    pack = pack_of(solo.setting(tree, tmp_path / "pack"))
    assert train(pack, {"000": {}}) == {}
    assert sorted(path.name for path in (tmp_path / "home/cache/teacher").glob("[!.]*")) == kept
    told = trial(pack.setting, "000").manifest["teacher"]
    assert told["kind"] == "logit"
    assert told["teacher_eval_loss"] == trial(alone, "000").manifest["teacher"]["teacher_eval_loss"]
