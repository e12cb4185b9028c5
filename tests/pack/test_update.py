"""The update of all slots at once is torch's AdamW of each slot, within rounding, and its host waits for nothing."""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ftlib.pack import engine
from ftlib.pack.engine import Pack
from ftlib.pack.update import AtOnce, Numbers, OneByOne, Tenant, Update, _adamw, _OrPlain
from ftlib.run.context import Setting

from ..models.test_lora_bank import bank_of
from .conftest import losses, pack_of, train, trial
from .test_isolation import NEIGHBOURS, WATCHED

OPTIONS: list[dict[str, Any]] = [
    {"lr": 1e-2, "weight_decay": 0.1},
    {"lr": 3e-3, "betas": (0.5, 0.99), "eps": 1e-6, "weight_decay": 0.0},
    {"lr": 1e-1, "betas": (0.9, 0.95), "weight_decay": 0.01},
]
LIMITS = [1.0, math.inf, 0.05]


def updates(parts: bool = False) -> tuple[OneByOne, AtOnce]:
    """Two banks with the same weights, each with its update and three tenants; with `parts`, the second trains half of
    its row at another rate and without decay, and a quarter not at all."""
    made: list[Update] = []
    for kind in (OneByOne, AtOnce):
        _, bank = bank_of([4, 2, 8, 8])
        bank.weights.copy_(torch.randn(bank.weights.shape, generator=torch.Generator().manual_seed(0)))
        update = kind(bank)
        for slot, (options, limit) in enumerate(zip(OPTIONS, LIMITS, strict=True)):
            row = torch.nn.Parameter(bank.weights[slot])
            row.grad = bank.grads[slot]
            groups: Any = [row]
            if parts and slot == 1:
                half, quarter = bank.size // 2, bank.size // 4
                other = {"params": [torch.nn.Parameter(bank.weights[slot, half : half + quarter])], "lr": 0.05}
                first = {"params": [torch.nn.Parameter(bank.weights[slot, :half])]}
                groups = [first, {**other, "weight_decay": 0.3}]
            update.take(slot, Tenant(row, torch.optim.AdamW(groups, fused=True, **options), limit))
        made.append(update)
    one, all_ = made
    assert isinstance(one, OneByOne)
    assert isinstance(all_, AtOnce)
    return one, all_


def stepped(update: Update, due: tuple[int, ...], seed: int, loss: float = 1.0) -> Numbers:
    update.bank.grads.copy_(torch.randn(update.bank.grads.shape, generator=torch.Generator().manual_seed(seed)))
    return update.step({slot: torch.tensor(loss) for slot in due})


@pytest.mark.parametrize("parts", [False, True])
def test_all_at_once_is_one_by_one(parts: bool) -> None:
    one, all_ = updates(parts)
    for seed, due in enumerate([(0, 1, 2), (2,), (0, 1), (0, 1, 2)]):
        ours, theirs = stepped(all_, due, seed), stepped(one, due, seed)
        for slot in range(3):
            if slot in due:
                assert ours.of(slot) == pytest.approx(theirs.of(slot))
            assert torch.equal(all_.bank.grads[slot].bool(), one.bank.grads[slot].bool())
    assert torch.allclose(all_.bank.weights, one.bank.weights, rtol=1e-5, atol=1e-6)
    for slot in range(3):
        for name, moment in one.tenants[slot].moments.items():
            assert torch.allclose(all_.tenants[slot].moments[name], moment, rtol=1e-5, atol=1e-7)
    quiet = torch.equal(one.bank.weights[1, -20:], updates()[0].bank.weights[1, -20:])
    assert quiet == parts


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_no_number_moves_its_own_slot_alone_not_even_that(number: int) -> None:
    update, clean = updates()[number], updates()[number]
    before = update.bank.weights.clone()
    update.bank.grads.fill_(1.0)
    update.bank.grads[1, 5] = float("nan")
    found = update.step({0: torch.tensor(1.0), 1: torch.tensor(1.0), 2: torch.tensor(math.inf)})
    assert torch.equal(update.bank.weights[1:], before[1:])
    assert math.isnan(found.of(1)[1])
    assert found.of(2)[0] == math.inf
    assert not update.bank.grads[:3].any()
    clean.bank.grads.fill_(1.0)
    clean.step({0: torch.tensor(1.0)})
    assert torch.equal(update.bank.weights[0], clean.bank.weights[0])


def test_the_next_tenant_and_one_that_goes_on(tmp_path: Path) -> None:
    one, all_ = updates(parts=True)
    for update in (one, all_):
        stepped(update, (0, 1, 2), 0)
        tenant = update.tenants[1]
        kept = {name: moment.clone() for name, moment in tenant.moments.items()}
        weights = update.bank.weights[1].clone()
        update.take(1, tenant)
        assert not any(moment.any() for moment in tenant.moments.values())
        update.bank.weights[1] = weights
        tenant.go_on(1, kept)
        stepped(update, (0, 1, 2), 1)
    assert torch.allclose(all_.bank.weights, one.bank.weights, rtol=1e-5, atol=1e-6)


def test_where_nothing_can_be_compiled_the_step_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def refuses(*args: Any) -> None:
        raise RuntimeError("Failed to find C compiler\nhere")

    all_, plain = updates()[1], updates()[1]
    all_.adamw = _OrPlain(refuses, _adamw)
    for update in (all_, plain):
        stepped(update, (0, 1), 0)
        stepped(update, (0, 1), 1)
    assert torch.equal(all_.bank.weights, plain.bank.weights)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["Failed to find C compiler"]


# --- in a pack that reads its numbers a step late, as on a device ---------------------------------------------------


class Far(Numbers):
    """Numbers of a device, which are there when they are asked for."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__(values.clone())
        self.here = False


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "update_of", AtOnce)
    monkeypatch.setattr("ftlib.pack.update.Numbers", Far)


def test_a_pack_on_a_device_has_the_same_losses(made: Setting, monkeypatch: pytest.MonkeyPatch, far: None) -> None:
    points = {"watched": WATCHED, "n2": NEIGHBOURS[2]}
    assert train(pack_of(made, slots=2), points) == {}
    late = [trial(made, name).metrics() for name in points]
    monkeypatch.undo()
    assert train(pack_of(made, slots=2), {f"{name}-here": point for name, point in points.items()}) == {}
    for name, rows in zip(points, late, strict=True):
        here = trial(made, f"{name}-here").metrics()
        for key in ("step", "epoch", "tokens", "loss", "grad_norm", "learning_rate", "eval_loss"):
            ours, theirs = ([row[key] for row in table if key in row] for table in (rows, here))
            assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_trial_without_numbers_is_named_a_step_late_with_the_right_step(made: Setting, far: None) -> None:
    def before(pack: Pack, tick: int) -> None:
        if tick == 4:
            pack.base.bank.weights[pack.members["n1"].slot] = float("nan")

    failures = train(pack_of(made, slots=3), {"watched": WATCHED, "n1": NEIGHBOURS[1], "n0": NEIGHBOURS[0]}, before)
    assert list(failures) == ["n1"]
    assert "loss became nan by step 5" in failures["n1"]
    assert len(losses(trial(made, "watched"))) == 16


def test_one_that_leaves_is_settled_first(made: Setting, far: None) -> None:
    failures: list[str] = []
    pack = pack_of(made, slots=2)
    for name in ("well", "ill"):
        pack.join(name, WATCHED, lambda row: None, failures.append)
    pack.tick()
    pack.base.bank.weights[pack.members["ill"].slot] = float("nan")
    pack.tick()
    pack.depart("well")
    assert len(losses(trial(made, "well"))) == 2
    pack.depart("ill")
    assert "loss became nan by step 2" in failures[0]
    assert pack.members == {}


ASKS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::bincount", "aten::masked_select", "aten::equal")


class Asked(TorchDispatchMode):
    """Notes every operation that waits for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().partition(".")[0] in ASKS:
            self.found += [str(frame) for frame in traceback.extract_stack() if "ftlib" in frame.filename][-1:]
        return func(*args, **(kwargs or {}))


def test_a_step_asks_the_device_for_no_number(made: Setting, far: None) -> None:
    made.resolved["train"].update(logging_steps=100)
    pack = pack_of(made, slots=2)
    for name, point in {"watched": WATCHED, "n2": NEIGHBOURS[2]}.items():
        pack.join(name, point, lambda row: None)
    pack.tick()
    with Asked() as asked:
        for _ in range(3):
            pack.tick()
    assert asked.found == []
