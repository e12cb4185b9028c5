"""The optimizer of one trial over its slot's row: AdamW, or what LoRA+ and LoRA-FA make of it.

With `train.layer_lr_decay`, its groups are by depth. Weight decay leaves vectors alone (a head's bias), as
transformers' trainer does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from peft.optimizers.lorafa import LoraFAOptimizer
from torch import Tensor, nn

from ftlib.config import Lora
from ftlib.config.train import TrainSection
from ftlib.models.bank_parts import MAGNITUDE, Part
from ftlib.models.depth import Depths, top_of
from ftlib.models.lora_bank import LoraBank
from ftlib.pack.update import MOMENTS, Tenant


def tenant_of(bank: LoraBank, slot: int, adapter: Lora, train: TrainSection) -> Tenant:
    """Who trains a slot that is configured."""
    row = nn.Parameter(bank.weights[slot])
    limit = train.max_grad_norm or math.inf
    if adapter.lora_fa:
        tenant: Tenant = FrozenA(row, _lora_fa(bank, slot, train), limit, bank, slot)
    else:
        tenant = Tenant(row, _adamw(row, _groups(bank, slot, adapter, train), train), limit)
        tenant.optimizer.step()  # of nothing yet: or torch would warn that the schedule goes first
    row.grad = bank.grads[slot]
    return tenant


# --- AdamW, and LoRA+ -------------------------------------------------------------------------------------------------


Group = tuple[list[tuple[int, int]], float, float]  # places in the row, rate, weight decay


def _groups(bank: LoraBank, slot: int, adapter: Lora, train: TrainSection) -> list[Group]:
    """A group for each rate and decay; the first has the rate that is reported."""
    if train.layer_lr_decay < 1:
        return _by_depth(bank, slot, train)
    rate, decay, ratio = train.learning_rate, train.weight_decay, adapter.lora_plus_ratio
    vectors = [(bank.decayed, bank.size)]
    if ratio is None:
        return [([(0, bank.decayed)], rate, decay), (vectors, rate, 0.0)]
    return [
        (_spans(part for part in bank.parts if part.kind in ("A", "weight")), rate, decay),
        (_spans(part for part in bank.parts if part.kind in ("B", MAGNITUDE)), rate * ratio, decay),
        (vectors, rate * ratio, 0.0),
    ]


def _by_depth(bank: LoraBank, slot: int, train: TrainSection) -> list[Group]:
    """A group for each depth, from the top down, and one for its vectors."""
    depths = Depths.of(bank.model)
    trained = [part for part in bank.parts if bank.view(slot, part, bank.weights) is not None]
    top = top_of((part.shape, depths.depth(part.name)) for part in trained)
    by_depth: dict[tuple[int, bool], list[Part]] = defaultdict(list)
    for part in bank.parts:  # what the slot does not train has no gradient, so any rate will do
        by_depth[min(depths.depth(part.name), top), part.start >= bank.decayed].append(part)
    return [
        (
            _spans(parts),
            train.learning_rate * train.layer_lr_decay ** (top - depth),
            0.0 if vector else train.weight_decay,
        )
        for (depth, vector), parts in sorted(by_depth.items(), key=lambda item: -item[0][0])
    ]


def _adamw(row: Tensor, spans: list[Group], train: TrainSection) -> torch.optim.AdamW:
    groups = [
        {"params": params, "lr": rate, "weight_decay": decay}
        for places, rate, decay in spans
        if (params := [nn.Parameter(row.detach()[start:end]) for start, end in places if start < end])
    ]
    betas = train.adam_beta1, train.adam_beta2
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=betas, eps=train.adam_epsilon, fused=True)


def _spans(parts: Iterable[Part]) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in parts]


# --- LoRA-FA ----------------------------------------------------------------------------------------------------------


def _lora_fa(bank: LoraBank, slot: int, train: TrainSection) -> LoraFAOptimizer:
    """PEFT's own, over PEFT's shapes: it wants A and B of a layer one after the other."""
    shown = [(part, view) for part in bank.parts if (view := bank.view(slot, part, bank.weights)) is not None]
    scales = [None if part.layer is None else float(bank.scales[slot, part.layer]) for part, _ in shown]
    group = {
        "params": [nn.Parameter(view, requires_grad=part.kind != "A") for part, view in shown],
        "names": [part.name for part, _ in shown],
        "scaling_factors": scales,
        "lr": train.learning_rate,
        "weight_decay": train.weight_decay,
    }
    return LoraFAOptimizer([group])


class FrozenA(Tenant):
    """A trial of LoRA-FA (arXiv:2308.03303): A stays as it was drawn, and has no part in the gradient's norm."""

    def __init__(self, row: nn.Parameter, optimizer: Any, limit: float, bank: LoraBank, slot: int) -> None:
        super().__init__(row, optimizer, limit)
        self.bank, self.slot = bank, slot
        self.trained = [
            part for part in bank.parts if part.kind != "A" and bank.view(slot, part, bank.weights) is not None
        ]

    def begin(self, moments: Sequence[Tensor]) -> None:
        """Moves in, before its first step."""
        self.moments = {name: moment.zero_() for name, moment in zip(MOMENTS, moments, strict=True)}
        (group,) = self.groups
        by_name = dict(zip(group["names"], group["params"], strict=True))
        for part in self.trained:
            by_name[part.name].grad = self.bank.view(self.slot, part, self.bank.grads)
            state = {name: self._view(part, moment) for name, moment in self.moments.items()}
            end = "_B" if part.kind == "B" else ""  # as PEFT keeps it
            self.optimizer.state[self._key(part)] = {"step": 0, **{name + end: view for name, view in state.items()}}

    def go_on(self, step: int, moments: Any) -> None:
        """Continues after so many steps, with the moments that they left, [D] each."""
        for name, moment in moments.items():
            self.moments[name].copy_(moment)
        for part in self.trained:
            self.optimizer.state[self._key(part)]["step"] = step

    def ready(self) -> None:
        """Forgets the gradients of what is not trained."""
        for part in self.bank.parts:
            if part.kind == "A":
                part.of(self.bank.grads)[self.slot].zero_()

    def _view(self, part: Part, flat: Tensor) -> Tensor | None:
        return self.bank.view(self.slot, part, flat.unsqueeze(0).expand(self.bank.slots, -1))

    @staticmethod
    def _key(part: Part) -> Any:
        """How PEFT's optimizer names a state: a layer's by its name."""
        return part.name[: part.name.find("lora")] + "lora" if part.kind == "B" else part.name
