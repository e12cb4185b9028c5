"""The bank: PEFT's own numbers, many adapters at once, plain folders in and out, bits that do not depend on company."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from ftlib.models.bank_routes import Dropout, Route
from ftlib.models.lora_bank import LoraBank

TARGETS = ["first", "second"]


class Net(nn.Module):
    """Two linear layers with something between."""

    def __init__(self, width: int = 48, inner: int = 80, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(width, inner), nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def bank_of(ranks: list[int], rank: int = 8, **shape: Any) -> tuple[Net, LoraBank]:
    net = Net(**shape).requires_grad_(False)
    bank = LoraBank(net, TARGETS, len(ranks), rank)
    for slot, r in enumerate(ranks):
        torch.manual_seed(slot)
        bank.configure(slot, r, 16 / r)
        bank.draw(slot)
        for part in bank.parts:  # B is zero at first: give it something to say
            if part.name.endswith("lora_B.weight"):
                part.of(bank.weights)[slot, :r] = torch.randn(r, part.shape[1]) * 0.1
    return net, bank


def peft_of(bank: LoraBank, slot: int) -> PeftModel:
    r = bank.ranks[slot][0]
    model = get_peft_model(Net(), LoraConfig(r=r, lora_alpha=16, target_modules=TARGETS))
    state = {name.replace(".weight", ".default.weight"): part for name, part in bank.peft_state(slot).items()}
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    return model


def test_each_row_is_answered_by_its_own_adapter_as_peft_answers() -> None:
    net, bank = bank_of([2, 8, 4])
    x = torch.randn(3, 16, 48)
    with bank.routed(Route([2, 0, 1])):
        found = net(x)
    for row, slot in enumerate([2, 0, 1]):
        assert torch.allclose(found[row], peft_of(bank, slot)(x[row]), atol=1e-6)
    assert torch.equal(net(x), Net()(x))  # without a route: the base


def test_gradients_are_pefts() -> None:
    net, bank = bank_of([2, 8, 4])
    x = torch.randn(3, 16, 48, requires_grad=True)
    with bank.routed(Route([0, 1, 2])):
        net(x).square().sum().backward()
    for slot in range(3):
        model, row = peft_of(bank, slot), x[slot].detach().requires_grad_()
        model(row).square().sum().backward()
        assert x.grad is not None
        assert torch.allclose(x.grad[slot], row.grad, rtol=1e-4, atol=1e-4)
        ours = bank.state(slot, of=bank.grads)
        for name, part in model.named_parameters():
            if part.grad is not None:
                plain = name.removeprefix("base_model.model.").replace(".default", "")
                assert torch.allclose(ours[plain], part.grad, rtol=1e-4, atol=1e-4), name


def test_rows_that_see_the_same_tokens_are_multiplied_once_and_alike() -> None:
    net, bank = bank_of([2, 8, 4])
    x = torch.randn(1, 16, 48)
    with bank.routed(Route([0, 1, 2])):
        shared, repeated = net(x.expand(3, -1, -1)), net(x.repeat(3, 1, 1))
    assert torch.equal(shared, repeated)


@pytest.mark.parametrize("kind", [True, "gaussian"])
def test_first_weights_are_those_that_peft_draws(kind: Any) -> None:
    model = get_peft_model(Net(), LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=kind))
    bank = LoraBank(Net().requires_grad_(False), TARGETS, 1, 8)
    bank.configure(0, 4, 1.0)
    Net()  # seeds the generator, as it did before PEFT drew
    bank.draw(0, gaussian=kind == "gaussian")
    for name, part in bank.state(0).items():
        theirs = model.state_dict()[f"base_model.model.{name.replace('.weight', '.default.weight')}"]
        assert torch.equal(part, theirs), name


def test_a_slot_is_a_plain_peft_folder(tmp_path: Path) -> None:
    _, bank = bank_of([3, 8])
    save_file(bank.peft_state(0), tmp_path / "adapter_model.safetensors")
    LoraConfig(r=3, lora_alpha=16, target_modules=TARGETS).save_pretrained(tmp_path)
    x = torch.randn(16, 48)
    there = PeftModel.from_pretrained(Net(), tmp_path)(x)
    other_net, other = bank_of([1, 1, 1], rank=16)
    other.configure(1, 3, 16 / 3)
    other.load_peft(1, load_file(tmp_path / "adapter_model.safetensors"))
    with other.routed(Route([1])):
        assert torch.allclose(other_net(x[None])[0], there, atol=1e-6)
    with pytest.raises(ValueError, match="no place for: third"):
        other.load_peft(1, {"base_model.model.third.lora_A.weight": torch.zeros(3, 4)})
    with pytest.raises(ValueError, match="rank 17 does not fit into a bank of rank 16"):
        other.configure(1, 17, 1.0)


def test_dropout_is_drawn_from_the_trial_alone() -> None:
    net, bank = bank_of([4, 4])
    x = torch.randn(1, 16, 48)
    drop = Dropout(0.5, (7, 3, 0), 16)
    with bank.routed(Route([0], [drop])):
        alone = net(x)
    with bank.routed(Route([1, 0], [None, drop])):
        among = net(torch.cat([torch.randn(1, 16, 48), x]))[1]
    assert torch.equal(alone[0], among)
    with bank.routed(Route([0], [Dropout(0.5, (7, 4, 0), 16)])):
        assert not torch.equal(alone, net(x))
    mask = drop.mask("first", (16, 4000), x)
    assert mask.mean().item() == pytest.approx(1.0, abs=0.03)
    assert set(mask.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("width", "inner"), [(64, 176), (512, 1408), (1024, 48)])
def test_a_row_of_sixteen_is_the_same_bits_in_any_company(width: int, inner: int, threads: int) -> None:
    """What certificate 1 stands on, at the sizes of real layers."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net, bank = bank_of([4] * 7, width=width, inner=inner)
        x = torch.randn(7, 48, width)
        with bank.routed(Route([3])):
            one = x[3:4].clone().requires_grad_()
            alone = net(one)
            alone.square().sum().backward()
        kept = bank.grads[3].clone()
        bank.grads.zero_()
        for company in ([3, 4], [1, 2, 3], list(range(7))):
            rows = x[company].clone().requires_grad_()
            with bank.routed(Route(company)):
                among = net(rows)
                among.square().sum().backward()
            where = company.index(3)
            assert torch.equal(among[where], alone[0]), company
            assert torch.equal(rows.grad[where], one.grad[0]), company
            assert torch.equal(bank.grads[3], kept), company
            bank.grads.zero_()
    finally:
        torch.set_num_threads(before)
