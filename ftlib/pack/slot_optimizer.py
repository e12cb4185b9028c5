"""The optimizer of one trial, over its slot's row: AdamW, or what LoRA+ and LoRA-FA make of it.

Weight decay leaves vectors alone (a head's bias), as transformers' trainer does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from peft.optimizers.lorafa import LoraFAOptimizer
from torch import Tensor, nn

from ftlib.config import Lora
from ftlib.config.train import TrainSection
from ftlib.models.lora_bank import MAGNITUDE, LoraBank, Part

MOMENTS = ("exp_avg", "exp_avg_sq")


class SlotOptimizer:
    """`torch` is the optimizer that a schedule moves. `moments` lie as the slot's row does, [D] each."""

    def __init__(self, bank: LoraBank, slot: int, adapter: Lora, train: TrainSection) -> None:
        self.bank, self.slot, self.adapter, self.train = bank, slot, adapter, train
        self.moments = {kind: torch.zeros(bank.size, device=bank.device) for kind in MOMENTS}
        self.row, self.grad = bank.weights[slot], bank.grads[slot]
        self.torch = self._lora_fa() if adapter.lora_fa else self._adamw()

    def begin(self, step: int) -> None:
        """The state after so many steps, over what `moments` holds by now."""
        self.torch.state.clear()
        for group in self.torch.param_groups:
            for number, weight in enumerate(group["params"]):
                self._remember(group, number, weight, step)

    def forget_frozen(self) -> None:
        """What is not trained has no part in the gradient's norm."""
        if self.adapter.lora_fa:
            for part in self.bank.parts:
                if part.kind == "A":
                    part.of(self.bank.grads)[self.slot].zero_()

    def clip(self, limit: float) -> Tensor:
        """Shortens the gradient to a norm of `limit`; returns the norm that it had."""
        whole = nn.Parameter(self.row)
        whole.grad = self.grad
        return nn.utils.clip_grad_norm_([whole], limit, foreach=False)

    # --- AdamW, and LoRA+ -------------------------------------------------------------------------------------

    def _adamw(self) -> torch.optim.Optimizer:
        """A group for each rate and decay; the first has the rate that is reported."""
        rate, decay, bank = self.train.learning_rate, self.train.weight_decay, self.bank
        ratio = self.adapter.lora_plus_ratio
        if ratio is None:
            spans = [([(0, bank.decayed)], rate, decay), ([(bank.decayed, bank.size)], rate, 0.0)]
        else:
            spans = [
                (self._spans(part for part in bank.parts if part.kind in ("A", "weight")), rate, decay),
                (self._spans(part for part in bank.parts if part.kind in ("B", MAGNITUDE)), rate * ratio, decay),
                ([(bank.decayed, bank.size)], rate * ratio, 0.0),
            ]
        groups = [
            {"params": params, "lr": rate, "weight_decay": decay}
            for places, rate, decay in spans
            if (params := [self._weight(start, end) for start, end in places if start < end])
        ]
        betas = self.train.adam_beta1, self.train.adam_beta2
        return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=self.train.adam_epsilon, fused=True)

    @staticmethod
    def _spans(parts: Iterable[Part]) -> list[tuple[int, int]]:
        return [(part.start, part.end) for part in parts]

    def _weight(self, start: int, end: int) -> nn.Parameter:
        weight = nn.Parameter(self.row[start:end])
        weight.grad = self.grad[start:end]
        return weight

    # --- LoRA-FA ----------------------------------------------------------------------------------------------

    def _lora_fa(self) -> torch.optim.Optimizer:
        """PEFT's own, over PEFT's shapes: it wants A and B of a layer one after the other."""
        shown = [(part, view) for part in self.bank.parts if (view := self._view(part, self.row)) is not None]
        weights = []
        for part, view in shown:
            weights.append(nn.Parameter(view, requires_grad=part.kind != "A"))
            weights[-1].grad = None if part.kind == "A" else self._view(part, self.grad)
        group = {
            "params": weights,
            "names": [part.name for part, _ in shown],
            "scaling_factors": [self._scale(part) for part, _ in shown],
            "lr": self.train.learning_rate,
            "weight_decay": self.train.weight_decay,
        }
        return LoraFAOptimizer([group])

    def _view(self, part: Part, flat: Tensor) -> Tensor | None:
        """A slot's tensor in PEFT's shape; None where the slot has no such layer."""
        return self.bank.view(self.slot, part, flat.unsqueeze(0).expand(self.bank.slots, -1))

    def _scale(self, part: Part) -> float | None:
        return None if part.layer is None else float(self.bank.scales[self.slot, part.layer])

    # --- state ------------------------------------------------------------------------------------------------

    def _remember(self, group: dict[str, Any], number: int, weight: Tensor, step: int) -> None:
        state: dict[Any, dict[str, Any]] = self.torch.state
        if not self.adapter.lora_fa:
            start = weight.storage_offset() - self.row.storage_offset()
            views = {kind: flat[start : start + len(weight)] for kind, flat in self.moments.items()}
            state[weight] = {"step": torch.tensor(float(step), device=weight.device), **views}
            return
        name = group["names"][number]
        part = next(part for part in self.bank.parts if part.name == name)
        if part.kind == "A":
            return
        key, end = (name[: name.find("lora")] + "lora", "_B") if part.kind == "B" else (name, "")
        state[key] = {"step": step, **{kind + end: self._view(part, flat) for kind, flat in self.moments.items()}}
