"""Certificate 1: a trial in a pack leaves the same bits as the same trial alone in a pack of one, whoever its neighbours
are and whatever becomes of them. (float32 on a CPU; docs/packs.md has the conditions.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.pack.engine import Pack
from ftlib.runs import Run
from ftlib.setting import Setting

from ..test_trial import setting
from .conftest import assert_same_bits, left_behind, losses, pack_of, train, trial

WATCHED = {"adapter.r": 4, "train.learning_rate": 1e-2, "adapter.lora_dropout": 0.1, "train.weight_decay": 0.1}
NEIGHBOURS: list[dict[str, Any]] = [
    {"adapter.r": 8, "train.learning_rate": 3e-2, "train.seed": 7},
    {"adapter.r": 2, "train.per_device_train_batch_size": 3, "adapter.lora_dropout": 0.3, "train.seed": 8},
    {"adapter.r": 8, "train.gradient_accumulation_steps": 2, "train.weight_decay": 0.3, "train.max_grad_norm": 0.01},
    {"adapter.r": 4, "adapter.lora_alpha": 64, "train.lr_scheduler_type": "linear", "train.adam_beta1": 0.5},
    {"adapter.r": 6, "train.per_device_train_batch_size": 7, "adapter.use_rslora": True, "train.seed": 9},
]


@pytest.fixture
def made(tree: dict[str, Any], tmp_path: Path) -> Setting:
    tree["train"].update(max_steps=16, logging_steps=1, learning_rate=1e-2, eval_strategy="steps", eval_steps=8)
    tree["adapter"] = {"type": "lora", "r": 4, "lora_alpha": 8}
    return setting(tree, tmp_path / "shared")


def alone(made: Setting, threads: int = 1) -> dict[str, Any]:
    assert train(pack_of(made, slots=1, threads=threads), {"alone": WATCHED}) == {}
    return left_behind(trial(made, "alone"))


def crowd() -> dict[str, dict[str, Any]]:
    return {f"n{number}": point for number, point in enumerate(NEIGHBOURS)}


@pytest.mark.parametrize(("width", "threads"), [(8, 1), (3, 1), (8, 2)])
def test_neighbours_change_no_bit(made: Setting, width: int, threads: int) -> None:
    pack = pack_of(made, width=width, threads=threads)
    assert train(pack, {"n0": NEIGHBOURS[0], "watched": WATCHED, **crowd()}) == {}
    left = left_behind(trial(made, "watched"))
    try:
        assert_same_bits(alone(made, threads), left)
    finally:
        torch.set_num_threads(1)


def test_comings_and_goings_change_no_bit(made: Setting) -> None:
    def before(pack: Pack, tick: int) -> None:
        if tick == 3:
            pack.leave("n0")
            pack.leave("n3")
        if tick == 5:
            pack.join("late", NEIGHBOURS[1] | {"train.seed": 11}, lambda row: None)
        if tick == 9 and "n2" in pack.members:
            pack.leave("n2")

    pack = pack_of(made)
    assert train(pack, {**crowd(), "watched": WATCHED}, before) == {}
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_a_neighbour_without_numbers_changes_no_bit_and_ends_alone(made: Setting) -> None:
    def before(pack: Pack, tick: int) -> None:
        if tick == 4:
            pack.base.bank.weights[pack.members["n1"].slot] = float("nan")

    pack = pack_of(made)
    failures = train(pack, {**crowd(), "watched": WATCHED}, before)
    assert list(failures) == ["n1"]
    assert "loss became nan by step 5" in failures["n1"]
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_the_next_tenant_of_a_slot_begins_clean(made: Setting) -> None:
    pack = pack_of(made, slots=1)
    train(pack, {"first": {**NEIGHBOURS[0], "train.learning_rate": 0.5}})
    train(pack, {"watched": WATCHED})
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_out_of_memory_halves_the_width_and_changes_no_bit(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Pack._forward_backward
    widths: list[int] = []

    def small(self: Pack, fused: Any) -> Any:
        done = computed(self, fused)
        widths.append(len(fused))
        if len(fused) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return done

    monkeypatch.setattr(Pack, "_forward_backward", small)
    pack = pack_of(made)
    assert train(pack, {**crowd(), "watched": WATCHED}) == {}
    assert max(widths) > 2
    assert pack.width <= 2
    assert Run(Path(made.run)).events()[-1]["event"] == "pack_narrowed"
    monkeypatch.undo()
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_trials_of_one_seed_share_their_batches_and_change_no_bit(made: Setting) -> None:
    """Where all see the same tokens, what lies below the first adapter is computed once."""
    pack = pack_of(made)
    others = {f"n{number}": {"adapter.r": 8, "train.learning_rate": 1e-3 * (number + 1)} for number in range(4)}
    assert train(pack, {**others, "watched": WATCHED}) == {}
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_outside_the_conditions_the_drift_is_small(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places in blocks of 16 are what makes the bits the same. Without, what is left is rounding."""
    monkeypatch.setattr("ftlib.pack.layout.BLOCK", 1)
    train(pack_of(made, slots=1), {"alone": WATCHED})
    train(pack_of(made), {**crowd(), "watched": WATCHED})
    assert losses(trial(made, "watched")) == pytest.approx(losses(trial(made, "alone")), rel=1e-4)
