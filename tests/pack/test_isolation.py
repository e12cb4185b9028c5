"""Certificate 1: a trial in a pack leaves the same bits as the same trial alone in a pack of one, whoever its
neighbours are and whatever becomes of them. (float32 on a CPU; docs/packs.md has the conditions.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.files.json_files import read_json
from ftlib.pack.engine import Pack
from ftlib.pack.isolation import Isolation, _condition, probe
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from ftlib.run.layout import PACK_FILE
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_table
from ftlib.sweeps.pack_plan import _tell

from .conftest import assert_same_bits, left_behind, losses, pack_of, train, trial

WATCHED = {"adapter.r": 4, "train.learning_rate": 1e-2, "adapter.lora_dropout": 0.1, "train.weight_decay": 0.1}
NEIGHBOURS: list[dict[str, Any]] = [
    {"adapter.r": 8, "train.learning_rate": 3e-2, "train.seed": 7},
    {"adapter.r": 2, "train.per_device_train_batch_size": 3, "adapter.lora_dropout": 0.3, "train.seed": 8},
    {"adapter.r": 8, "train.gradient_accumulation_steps": 2, "train.weight_decay": 0.3, "train.max_grad_norm": 0.01},
    {"adapter.r": 4, "adapter.lora_alpha": 64, "train.lr_scheduler_type": "linear", "train.adam_beta1": 0.5},
    {"adapter.r": 6, "train.per_device_train_batch_size": 7, "adapter.use_rslora": True, "train.seed": 9},
]


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


def test_a_trial_that_has_no_memory_alone_is_failed_alone(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Pack._forward_backward

    def small(self: Pack, fused: Any) -> Any:
        done = computed(self, fused)
        if any(member.trial.id == "n0" for member, _ in fused):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return done

    monkeypatch.setattr(Pack, "_forward_backward", small)
    failures = train(pack_of(made), {"n0": NEIGHBOURS[0], "watched": WATCHED})
    assert list(failures) == ["n0"]
    assert "lower train.per_device_train_batch_size" in failures["n0"]
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_an_evaluation_without_memory_is_made_in_halves(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated = Pack.evaluations
    refused: list[int] = []

    def small(self: Pack, slots: Any, objectives: Any, rows: Any = None, roomy: bool = True) -> Any:
        if len(slots) > 1 or ("n0" in self.members and self.members["n0"].slot in slots):
            refused.append(len(slots))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluated(self, slots, objectives, rows, roomy)

    pack = pack_of(made)
    pack.evaluate_base = lambda make: None  # type: ignore[method-assign]
    monkeypatch.setattr(Pack, "evaluations", small)
    failures = train(pack, {"n0": NEIGHBOURS[0], "n1": NEIGHBOURS[1], "watched": WATCHED})
    assert list(failures) == ["n0"]
    assert "lower train.per_device_eval_batch_size" in failures["n0"]
    assert max(refused) > 1
    monkeypatch.undo()
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_a_trial_that_leaves_within_a_step_does_it_again_whole(made: Setting) -> None:
    point = {**WATCHED, "train.gradient_accumulation_steps": 2}

    def before(pack: Pack, tick: int) -> None:
        if tick == 5:  # two steps and a half
            pack.depart("watched")
            pack.join("watched", point, lambda row: None)

    assert train(pack_of(made), {"watched": point}, before) == {}
    assert train(pack_of(made), {"alone": point}) == {}
    assert_same_bits(left_behind(trial(made, "alone")), left_behind(trial(made, "watched")))


def test_trials_of_one_seed_share_their_batches_and_change_no_bit(made: Setting) -> None:
    """Where all see the same tokens, what lies below the first adapter is computed once."""
    pack = pack_of(made)
    others = {f"n{number}": {"adapter.r": 8, "train.learning_rate": 1e-3 * (number + 1)} for number in range(4)}
    assert train(pack, {**others, "watched": WATCHED}) == {}
    assert_same_bits(alone(made), left_behind(trial(made, "watched")))


def test_outside_the_conditions_the_drift_is_small(made: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places in blocks of 16 are what makes the bits the same. Without, what is left is rounding."""
    monkeypatch.setattr("ftlib.pack.token_layout.BLOCK", 1)
    train(pack_of(made, slots=1), {"alone": WATCHED})
    train(pack_of(made), {**crowd(), "watched": WATCHED})
    assert losses(trial(made, "watched")) == pytest.approx(losses(trial(made, "alone")), rel=1e-4)


# --- whether it holds on this machine -------------------------------------------------------------------------------


class Cut(torch.nn.Module):
    """A layer's product, summed over halves of its inputs, or over quarters where there are more rows: as MKL does."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight = layer.product(torch.eye(layer.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        part = len(self.weight) // (2 if x.shape[:-1].numel() <= 16 else 4)
        return sum(a @ b for a, b in zip(x.split(part, -1), self.weight.split(part), strict=True))


@pytest.mark.parametrize("slots", [1, 5])
def test_the_probe_says_whether_the_products_of_this_machine_hold(made: Setting, slots: int) -> None:
    base = pack_of(made, slots=slots).base
    assert (probe(base).promise, probe(base).off, probe(base).shapes) == ("bits", 0.0, 5)
    layer = base.bank.layers[-1]
    layer.base = Cut(layer.base)
    found = probe(base)
    assert found.promise == "rounding"
    assert found.where == "64 x 32"
    assert 1e-9 < found.off < 1e-5
    assert f"up to {found.off:.1e} of a layer's result (64 x 32)" in found.sentence
    assert base.bank.slots == slots
    assert not any(part.any() for part in (base.bank.weights, base.bank.grads, base.bank.scales))


def test_the_probe_finds_it_in_the_head_too_and_promises_no_bits_elsewhere(
    made: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = pack_of(made).base
    base.model.lm_head = Cut(head := base.model.lm_head)
    base.model.lm_head.in_features, base.model.lm_head.out_features = head.in_features, head.out_features
    assert probe(base).where == f"32 x {head.out_features}"
    monkeypatch.setattr("ftlib.pack.isolation.LANES", 48)
    plain = pack_of(made).base
    assert "32 inputs, no multiple of 48" in probe(plain).sentence
    plain.model.bfloat16()
    assert "float32 on a CPU alone" in str(_condition(plain))


def test_a_run_promises_what_its_weakest_host_does(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x", "", {"objective": ["eval_loss", "min"]})
    bits = Isolation(0.0, None, 5)
    for host, isolation in enumerate((bits, Isolation(3e-7, "64 x 32", 5), bits, Isolation(1e-7, "32 x 32", 5))):
        _tell(run, "host_opened", host=host, isolation=isolation.to_dict())
    assert read_json(run.path / PACK_FILE)["isolation"]["promise"] == "rounding"
    board = to_table(leaderboard(run), width=40)
    assert (
        str(board.caption) == "pack: company changes a trial by rounding: up to 3.0e-07 of a layer's result (64 x 32)"
    )
