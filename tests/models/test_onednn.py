"""A frozen layer's products are nn.Linear's, forward and backward, and a row's do not depend on the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ftlib.models.bank_routes import Route
from ftlib.models.lora_bank import LoraBank
from ftlib.models.onednn import FrozenLinear, freeze_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_the_layer(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 80, bias=bias).requires_grad_(False)
    frozen = FrozenLinear(layer, gradients=True)
    x = torch.randn(3, 7, 48, requires_grad=True)
    y = x.detach().clone().requires_grad_(True)
    out, wanted = frozen(x), layer(y)
    assert torch.allclose(out, wanted, atol=1e-5)
    dy = torch.randn_like(out)
    out.backward(dy)
    wanted.backward(dy)
    assert torch.allclose(x.grad, y.grad, atol=1e-5)
    assert not frozen(x.detach()).requires_grad


def test_a_row_is_the_same_in_any_company() -> None:
    torch.manual_seed(0)
    frozen = FrozenLinear(nn.Linear(64, 96), gradients=True)
    x, dy = torch.randn(512, 64), torch.randn(512, 96)
    for rows in (1, 5, 16, 33, 512):
        assert torch.equal(frozen.product(x[:rows]), frozen.product(x)[:rows])
        assert torch.equal(frozen.gradient(dy[:rows]), frozen.gradient(dy)[:rows])


def test_what_is_frozen_and_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> nn.Sequential:
        return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8).bfloat16(), nn.Linear(8, 2))

    made = model()
    assert freeze_linears(made, gradients=True, keep=["3"]) == 1
    assert [type(part).__name__ for part in made] == ["FrozenLinear", "ReLU", "Linear", "Linear"]
    monkeypatch.setattr("ftlib.models.onednn.ROOM", 0.0)  # a second layout has no room
    assert freeze_linears(model(), gradients=True) == 0
    assert freeze_linears(model(), gradients=False) == 2


def test_a_bank_over_frozen_layers_trains_as_over_plain_ones() -> None:
    found = []
    for freeze in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(32, 48), nn.Tanh(), nn.Linear(48, 32)).requires_grad_(False)
        if freeze:
            assert freeze_linears(net, gradients=True) == 2
        bank = LoraBank(net, ["0", "2"], 2, 4)
        for slot in range(2):
            torch.manual_seed(slot)
            bank.configure(slot, 4, 2.0)
            bank.draw(slot)
        bank.weights.add_(0.01)
        with bank.routed(Route([0, 1])):
            net(torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))).square().sum().backward()
        found.append(bank.grads.clone())
    assert torch.allclose(*found, rtol=1e-4, atol=1e-4)
    assert found[0].abs().max() > 0.1
