"""The optimizer's step of a pack: AdamW with clipping, of every trial whose step is due.

On a CPU each trial has a call of torch's own AdamW over its slot's row: certificate 1 promises the bits of that. On a
device one pass goes over [slots, D] for all of them, and the host waits for nothing: losses and norms travel behind the
next step. Both take a trial's options from its torch optimizer, and keep its moments in the state of that optimizer.
A trial whose loss or gradient is no number keeps its weights, whatever the others do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ftlib.models.lora_bank import LoraBank
from ftlib.models.to_device import sent

logger = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names
CLIPPING_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_ adds it to a norm before it divides by it


@dataclass
class Tenant:
    """Who trains a slot. `row` [D] is the slot's weights with their gradient. `optimizer` has the row as its parameter,
    or parts of it (views), in groups with rates and decays of their own; they share betas, eps and schedule.
    `limit` is max_grad_norm; inf does not clip."""

    row: torch.nn.Parameter
    optimizer: torch.optim.AdamW
    limit: float
    moments: dict[str, Tensor] = field(default_factory=dict, init=False)  # [D] of each of MOMENTS
    steps: int = field(default=0, init=False)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The options of the optimizer's groups, with their parameters."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        return groups

    def place(self, part: Tensor) -> slice:
        """Where a parameter of the optimizer lies in the row."""
        start = part.storage_offset() - self.row.storage_offset()
        return slice(start, start + part.numel())

    def begin(self, moments: Sequence[Tensor]) -> None:
        """Moves in, before its first step: the optimizer's state is views into `moments`, [D] each, and zero."""
        self.steps = 0
        self.moments = {name: moment.zero_() for name, moment in zip(MOMENTS, moments, strict=True)}
        assert self.row.grad is not None
        for part in self._parts():
            place = self.place(part)
            part.grad = self.row.grad[place].view_as(part)
            state = {name: moment[place].view_as(part) for name, moment in self.moments.items()}
            self.optimizer.state[part] = {"step": torch.zeros(()), **state}

    def go_on(self, step: int, moments: Mapping[str, Tensor]) -> None:
        """Continues after so many steps, with the moments that they left, [D] each."""
        self.steps = step
        for name, moment in moments.items():
            self.moments[name].copy_(moment)
        for part in self._parts():
            self.optimizer.state[part]["step"].fill_(step)

    def ready(self) -> None:
        """The gradients are complete; before their norm is taken."""

    def _parts(self) -> Iterator[Tensor]:
        return (part for group in self.groups for part in group["params"])


class Numbers:
    """Losses and norms of one update, [2, slots], on their way to the host. To read them waits for their update alone:
    the device may be steps ahead of it."""

    def __init__(self, values: Tensor) -> None:
        self.here = values.device.type == "cpu"
        self._values = values.to("cpu", non_blocking=True)
        self._there = None if self.here else torch.cuda.current_stream(values.device).record_event()

    def of(self, slot: int) -> tuple[float, float]:
        """The slot's loss and the norm of its gradient."""
        if self._there is not None:
            self._there.synchronize()
        loss, norm = self._values[:, slot].tolist()
        return loss, norm


class OneByOne:
    """A call of torch's AdamW for each slot."""

    def __init__(self, bank: LoraBank) -> None:
        self.bank = bank
        self.tenants: dict[int, Tenant] = {}

    def take(self, slot: int, tenant: Tenant) -> None:
        """A trial moves in, before its first step: its moments are zero."""
        self.tenants[slot] = tenant
        tenant.begin([torch.zeros_like(tenant.row) for _ in MOMENTS])

    def step(self, losses: Mapping[int, Tensor]) -> Numbers:
        """The step of the slots that `losses` names, by the gradients in the bank, which are zero afterwards."""
        values = torch.zeros(2, self.bank.slots)
        for slot, loss in losses.items():
            tenant = self.tenants[slot]
            tenant.ready()
            values[0, slot] = loss
            values[1, slot] = torch.nn.utils.clip_grad_norm_([tenant.row], tenant.limit, foreach=False)
            if values[:, slot].isfinite().all():
                tenant.steps += 1
                tenant.optimizer.step()
            self.bank.grads[slot].zero_()
        return Numbers(values)


class AtOnce:
    """One pass over all slots, for a device. The moments take the memory of 2 [slots, D] from the beginning."""

    def __init__(self, bank: LoraBank) -> None:
        self.bank = bank
        self.tenants: dict[int, Tenant] = {}
        self.moments = [torch.zeros_like(bank.weights) for _ in MOMENTS]
        self.own: tuple[Tensor, Tensor] | None = None  # `_own` of all slots, once one of them has parts
        self.none = torch.zeros((), device=bank.device)
        self.adamw = _on(bank.device)

    def take(self, slot: int, tenant: Tenant) -> None:
        """A trial moves in, before its first step: its moments are zero."""
        self.tenants[slot] = tenant
        tenant.begin([moment[slot] for moment in self.moments])
        if self.own is None and len(tenant.groups) > 1:
            self.own = torch.ones_like(self.bank.weights), torch.zeros_like(self.bank.weights)
            for number in self.tenants:
                self._of_its_own(number)
        elif self.own is not None:
            self._of_its_own(slot)

    def _of_its_own(self, slot: int) -> None:
        assert self.own is not None
        _own(self.tenants[slot], *(stack[slot] for stack in self.own))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, losses: Mapping[int, Tensor]) -> Numbers:
        """The step of the slots that `losses` names, by the gradients in the bank, which are zero afterwards."""
        slots = range(self.bank.slots)
        table = torch.tensor([_row(self.tenants[slot]) if slot in losses else IDLE for slot in slots])
        norms = torch.linalg.vector_norm(self.bank.grads, dim=1)
        values = torch.stack([torch.stack([losses.get(slot, self.none) for slot in slots]), norms])
        stacks = (self.bank.weights, self.bank.grads, *self.moments)
        self.adamw(*stacks, values, sent(table, self.bank.device), self.own)
        return Numbers(values)


Update = OneByOne | AtOnce


def update_of(bank: LoraBank) -> Update:
    """The update for the device that a bank is on."""
    return OneByOne(bank) if bank.device.type == "cpu" else AtOnce(bank)


IDLE = [0.0] * 9  # the options of a slot whose step is not due


def _row(tenant: Tenant) -> list[float]:
    """What the next step of a slot computes with, in the order of `_adamw`."""
    tenant.steps += 1
    group, step = tenant.groups[0], tenant.steps
    (beta1, beta2), rate = group["betas"], group["lr"]
    return [
        1.0,
        tenant.limit,
        rate,
        group["weight_decay"],
        1 - beta1,
        1 - beta2,
        1 / (1 - beta1**step),
        1 / math.sqrt(1 - beta2**step),
        group["eps"],
    ]


def _own(tenant: Tenant, shares: Tensor, decays: Tensor) -> None:
    """Of each of the slot's numbers [D]: its rate, divided by that of the first group, and its weight decay. What is in
    no group stays as it is."""
    shares.zero_(), decays.zero_()
    first = _begun(tenant.groups[0])
    for group in tenant.groups:
        for part in group["params"]:
            shares[tenant.place(part)] = _begun(group) / first
            decays[tenant.place(part)] = group["weight_decay"]


def _begun(group: dict[str, Any]) -> float:
    """The rate that a schedule multiplies."""
    return float(group.get("initial_lr", group["lr"]))


def _adamw(
    weights: Tensor,
    grads: Tensor,
    first: Tensor,
    second: Tensor,
    values: Tensor,
    table: Tensor,
    own: tuple[Tensor, Tensor] | None,
) -> None:
    """AdamW (Loshchilov and Hutter, 2019) as torch computes it, in place. weights, grads, first, second [slots, D], and
    so the two of `own`; values [2, slots], losses and norms; table [slots, 9]."""
    due, limit, rate, decay, to_first, to_second, mean, root, epsilon = table.unsqueeze(1).unbind(2)
    goes = (due > 0) & values.isfinite().all(0).unsqueeze(1)
    gradient = grads * (limit / (values[1].unsqueeze(1) + CLIPPING_EPSILON)).clamp(max=1.0)
    moved, squared = torch.lerp(first, gradient, to_first), torch.lerp(second, gradient * gradient, to_second)
    if own is not None:
        rate, decay, goes = rate * own[0], own[1], goes & (own[0] > 0)
    stepped = weights * (1 - rate * decay) - rate * mean * moved / (squared.sqrt() * root + epsilon)
    weights.copy_(torch.where(goes, stepped, weights))
    first.copy_(torch.where(goes, moved, first))
    second.copy_(torch.where(goes, squared, second))
    grads.copy_(torch.where(due > 0, 0.0, grads))


def _on(device: torch.device) -> Callable[..., None]:
    """`_adamw`; for CUDA compiled to one kernel, which reads and writes each number once."""
    return _OrPlain(torch.compile(_adamw, dynamic=False), _adamw) if device.type == "cuda" else _adamw


class _OrPlain:
    """What torch's compiler makes of a function; where it cannot (Triton wants a C compiler), the function, and that is
    said."""

    def __init__(self, compiled: Callable[..., None], plain: Callable[..., None]) -> None:
        self.compiled: Callable[..., None] | None = compiled
        self.plain = plain

    def __call__(self, *args: Any) -> None:
        if self.compiled is not None:
            try:
                return self.compiled(*args)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # before anything is computed
                reason = str(error).strip().partition("\n")[0]
                logger.warning("the optimizer's step is not compiled, which costs memory and time: %s", reason)
                self.compiled = None
        return self.plain(*args)
