"""Many LoRA adapters on one frozen base: rows of a batch are routed to adapters, all of them in one product.

A bank has slots. All that a slot trains is one row of `weights` [slots, D] and of `grads` [slots, D]; the matrices of a
layer, A [slots, in, R] and B [slots, R, out], are views into it. So an optimizer or a gradient norm sees a trial as one
contiguous vector, a slot is copied or emptied by one row, and adapters of different rank share a product: R is the
bank's largest rank, and what a smaller adapter does not use stays zero (its gradient is zero too).

Inputs are [N, M, in]: M tokens for each of the N slots that `route` names. The same layer trains packs and serves
endpoints, where a `Mix` says which slot each row of a batch has. It needs torch and transformers alone; adapters come
from and go to plain PEFT folders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.models.bank_routes import Mix, Route, bmm
from ftlib.models.onednn import gradient, is_plain, product

ALIGN = 16  # floats: a part begins where vector instructions do
PREFIX = "base_model.model."  # of PEFT's names


@dataclass
class Part:
    """One trained matrix: where it lies in a slot's row. `shape` is (rows, columns) of a slot's matrix."""

    name: str
    start: int
    shape: tuple[int, int]
    rank_dim: int | None  # the dimension that is cut to a slot's rank; None for a head, which has none

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def of(self, flat: Tensor) -> Tensor:
        """[slots, rows, columns], a view."""
        rows, columns = self.shape
        return flat.as_strided(
            (len(flat), rows, columns), (flat.stride(0), columns, 1), flat.storage_offset() + self.start
        )


class BankLinear(nn.Module):
    """In the place of a linear layer: its own output, plus each row's low-rank product."""

    def __init__(self, base: nn.Module, bank: LoraBank, number: int) -> None:
        super().__init__()
        self.base, self.number = base, number
        self._bank = (bank,)  # in a tuple: the bank is no child of its own layer

    def __getattr__(self, name: str) -> Any:
        """`weight`, `in_features` and the like are the base's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, x: Tensor) -> Tensor:
        (bank,) = self._bank
        if bank.route is None:
            return self.base(x)
        if isinstance(bank.route, Mix):
            return self._mixed(x, bank, bank.route)
        return _Product.apply(x, None if is_plain(self.base) else self.base(x), bank.anchor, self, bank.route)

    def _mixed(self, x: Tensor, bank: LoraBank, mix: Mix) -> Tensor:
        """Without gradients, and without scales: a served bank has them in its B."""
        out: Tensor = self.base(x)
        rows = x.reshape(mix.rows, -1, x.shape[-1])  # some models flatten their batch
        mix.add(out.view(mix.rows, -1, out.shape[-1]), rows, *bank.first(self.number, mix.groups, mix.weights))
        return out


class _Product(torch.autograd.Function):
    """x W^T + b + s (x A) B, forward and backward. Gradients of A and B are added to the bank, not returned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Tensor | None, anchor: Tensor, layer: BankLinear, route: Route) -> Tensor:
        (bank,) = layer._bank
        a, b = bank.matrices(layer.number, route, x.dtype)
        scale = route.of(bank.scales).to(x.dtype).view(-1, 1, 1)
        mask = _masks(route, layer.number, x) if route.drops else None
        low = bmm(x if mask is None else x * mask, a).mul_(scale)
        shared = x.stride(0) == 0 and len(x) > 1  # every slot sees the same tokens: the base's product is made once
        if base is not None:
            out = torch.baddbmm(base, low, b)
        elif shared:
            out = torch.baddbmm(product(layer.base, x[:1]).expand(len(x), -1, -1), low, b)
        else:
            out = product(layer.base, x).baddbmm_(low, b)
        ctx.save_for_backward(x, low, mask)
        ctx.layer, ctx.route = layer, route
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, low, mask = ctx.saved_tensors
        layer, route = ctx.layer, ctx.route
        (bank,) = layer._bank
        a, b = bank.matrices(layer.number, route, dy.dtype)
        grad_a, grad_b = bank.gradients(layer.number)
        dlow = bmm(dy, b.transpose(1, 2)).mul_(route.of(bank.scales).to(dy.dtype).view(-1, 1, 1))
        route.add(grad_b, low.transpose(1, 2), dy)
        route.add(grad_a, (x if mask is None else x * mask).transpose(1, 2), dlow)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = gradient(layer.base, dy) if is_plain(layer.base) else None
            if mask is None and dx is not None:
                dx.baddbmm_(dlow, a.transpose(1, 2))
            else:
                through = torch.bmm(dlow, a.transpose(1, 2))
                through = through if mask is None else through.mul_(mask)
                dx = through if dx is None else dx.add_(through)
        return dx, None if is_plain(layer.base) else dy, None, None, None


class _Stacked(torch.autograd.Function):
    """x W of each slot's own whole matrix (a classifier's head); its gradient is added to the bank."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, bank: LoraBank, part: Part, route: Route) -> Tensor:
        weight = route.of(part.of(bank.weights)).to(x.dtype)
        ctx.save_for_backward(x, weight)
        ctx.bank, ctx.part, ctx.route = bank, part, route
        return bmm(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        ctx.route.add(ctx.part.of(ctx.bank.grads), x.transpose(1, 2), dy)
        return bmm(dy, weight.transpose(1, 2)), None, None, None, None


def _masks(route: Route, layer: int, x: Tensor) -> Tensor:
    masks = torch.ones(len(route.slots), *x.shape[1:], dtype=x.dtype, device=x.device)
    for mask, drop in zip(masks, route.dropouts, strict=True):
        if drop is not None:
            mask[: drop.tokens] = drop.mask(layer, x.shape[-1], x)
    return masks


@dataclass
class LoraBank:
    """`slots` adapters over the `targets` (names of linear layers) of `model`, which is changed in place.

    `rank` is R, the largest rank that a slot can have. `heads` are layers that a slot trains whole, its own copy each.
    Weights and gradients are float32 whatever the base computes in. A bank that only serves is `frozen`: it has no
    gradients, and its weights are in `dtype`, that of the base.
    """

    model: nn.Module
    targets: Sequence[str]
    slots: int
    rank: int
    heads: Sequence[str] = ()
    frozen: bool = False
    dtype: torch.dtype = torch.float32
    route: Route | Mix | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.parts: list[Part] = []
        size, self.layers = 0, []
        for number, name in enumerate(self.targets):
            base = self.model.get_submodule(name)
            layer = BankLinear(base, self, number)
            _replace(self.model, name, layer)
            self.layers.append(layer)
            inputs, outputs = _shape(base)
            size = self._add(f"{name}.lora_A.weight", size, (inputs, self.rank), 1)
            size = self._add(f"{name}.lora_B.weight", size, (self.rank, outputs), 0)
        self.head_parts = {}
        for name in self.heads:
            weight = self.model.get_submodule(name).weight
            size = self._add(f"{name}.weight", size, (weight.shape[1], weight.shape[0]), None)
            self.head_parts[name] = self.parts[-1]
        self.size = size  # D
        self.resize(self.slots)
        self.anchor = torch.zeros((), requires_grad=True)  # makes autograd come by where x itself needs no gradient

    def resize(self, slots: int) -> None:
        """Another number of slots, all of them empty."""
        self.slots = slots
        self.weights = self.grads = torch.zeros(0)  # freed before the new ones are taken
        self.weights = torch.zeros(slots, self.size, device=self.device, dtype=self.dtype)
        self.grads = torch.zeros(0 if self.frozen else slots, self.size, device=self.device)
        self.scales = torch.zeros(slots, device=self.device)
        self.ranks = [0] * slots
        self._views: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def _add(self, name: str, start: int, shape: tuple[int, int], rank_dim: int | None) -> int:
        self.parts.append(Part(name, start, shape, rank_dim))
        return math.ceil((start + self.parts[-1].size) / ALIGN) * ALIGN

    @contextmanager
    def routed(self, route: Route | Mix | None) -> Iterator[None]:
        """Within, rows of every batch go to the slots of `route`; with None the base answers alone."""
        before, self.route = self.route, route
        try:
            yield
        finally:
            self.route = before

    def matrices(self, layer: int, route: Route, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A [N, in, R] and B [N, R, out] of a layer, in the dtype of the computation."""
        a, b = self.parts[2 * layer], self.parts[2 * layer + 1]
        return route.of(a.of(self.weights)).to(dtype), route.of(b.of(self.weights)).to(dtype)

    def scaled(self, slots: Sequence[int], dtype: torch.dtype) -> Tensor:
        """[len(slots), D] in `dtype`: the weights of these slots, their scales in B, for a `Mix`."""
        weights = self.weights[list(slots)]
        for part in self.parts:
            if part.rank_dim == 0:
                part.of(weights).mul_(self.scales[list(slots)].view(-1, 1, 1))
        return weights.to(dtype)

    def first(self, layer: int, count: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A and B of a layer, of the first `count` slots of the bank, or of `weights`: views. The bank's are kept: a
        step of few rows spends as long on making them as on a product."""
        if weights is not None:
            return self.parts[2 * layer].of(weights), self.parts[2 * layer + 1].of(weights)
        if (layer, count) not in self._views:
            self._views[layer, count] = self.first(layer, count, self.weights[:count])
        return self._views[layer, count]

    def gradients(self, layer: int) -> tuple[Tensor, Tensor]:
        """The gradients of a layer's A and B, all slots."""
        return self.parts[2 * layer].of(self.grads), self.parts[2 * layer + 1].of(self.grads)

    def head(self, name: str, x: Tensor) -> Tensor:
        """Each slot's own head: x [N, rows, hidden] to [N, rows, classes]."""
        assert isinstance(self.route, Route)
        return _Stacked.apply(x, self.anchor, self, self.head_parts[name], self.route)

    # --- one slot ---------------------------------------------------------------------------------------------

    def configure(self, slot: int, r: int, scale: float) -> None:
        """Gives an empty slot its rank and its scale: lora_alpha / r, or lora_alpha / sqrt(r) of rsLoRA."""
        if not 1 <= r <= self.rank:
            raise ValueError(f"rank {r} does not fit into a bank of rank {self.rank}")
        self.weights[slot].zero_()
        self.grads[slot : slot + 1].zero_()
        self.ranks[slot], self.scales[slot] = r, scale

    def draw(self, slot: int, gaussian: bool = False) -> None:
        """The first weights, in PEFT's order from torch's global generator: a layer's A and B as nn.Linear makes them,
        then A once more (kaiming uniform, or normal with deviation 1/r). B is zero."""
        r, state = self.ranks[slot], {}
        for name in self.targets:
            base = self.model.get_submodule(name)
            a = nn.Linear(base.in_features, r, bias=False)
            nn.Linear(r, base.out_features, bias=False)
            nn.init.normal_(a.weight, std=1 / r) if gaussian else nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
            state[f"{name}.lora_A.weight"] = a.weight.detach()
        self.load(slot, state)

    def load(self, slot: int, state: Mapping[str, Tensor], into: Tensor | None = None) -> None:
        """Takes a slot's tensors by their names, in PEFT's shapes ([r, in], [out, r]); the rest becomes zero."""
        flat = self.weights if into is None else into
        flat[slot].zero_()
        for part in self.parts:
            if part.name in state:
                tensor = state[part.name].t()
                part.of(flat)[slot, : tensor.shape[0], : tensor.shape[1]] = tensor.to(flat)

    def state(self, slot: int, of: Tensor | None = None) -> dict[str, Tensor]:
        """A slot's tensors by their names, in PEFT's shapes, cut to the slot's rank. `of`: the weights, or anything
        that lies as they do (gradients, an optimizer's moments)."""
        flat, r, found = self.weights if of is None else of, self.ranks[slot], {}
        for part in self.parts:
            matrix = part.of(flat)[slot]
            if part.rank_dim is not None:
                matrix = matrix.narrow(part.rank_dim, 0, r)
            found[part.name] = matrix.t().detach().to("cpu", copy=True).contiguous()
        return found

    def peft_state(self, slot: int) -> dict[str, Tensor]:
        """The content of PEFT's `adapter_model.safetensors`."""
        return {PREFIX + name: tensor for name, tensor in self.state(slot).items()}

    def load_peft(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Takes the content of PEFT's `adapter_model.safetensors`. Raises ValueError for what the bank has no place
        for."""
        named = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
        unknown = sorted(set(named) - {part.name for part in self.parts})
        if unknown:
            raise ValueError(f"the adapter has weights that this bank has no place for: {unknown[0]}")
        self.load(slot, named)

    def swap(self, one: int, other: int) -> None:
        """Exchanges two slots, with all that they hold."""
        pair, turned = [one, other], [other, one]
        for stack in (self.weights, self.scales, *([] if self.frozen else [self.grads])):
            stack[pair] = stack[turned]
        self.ranks[one], self.ranks[other] = self.ranks[other], self.ranks[one]

    def detach(self) -> None:
        """Puts the model's own layers back."""
        for name, layer in zip(self.targets, self.layers, strict=True):
            _replace(self.model, name, layer.base)

    def parameters_of(self, slot: int) -> int:
        """How many numbers a slot trains."""
        r = self.ranks[slot]
        return sum(p.size if p.rank_dim is None else p.size // self.rank * r for p in self.parts)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer; GPT-2's Conv1D keeps its weight as [in, out]."""
    if hasattr(layer, "in_features"):
        return layer.in_features, layer.out_features
    inputs, outputs = layer.weight.shape
    return inputs, outputs
