"""Many LoRA adapters on one frozen base: rows of a batch are routed to adapters, all of them in one product.

A bank has slots. All that a slot trains is one row of `weights` [slots, D] and of `grads` [slots, D]; the matrices of a
layer, A [slots, in, R] and B [slots, R, out], are views into it. So an optimizer or a gradient norm sees a trial as one
contiguous vector, a slot is copied or emptied by one row, and adapters of different rank share a product: R is the
bank's largest rank, and what a smaller adapter does not use stays zero (its gradient is zero too). The same holds for a
layer that a slot does not adapt at all: its rank there is 0.

Inputs are [N, M, in]: M tokens for each of the N slots that `route` names. The same layer trains packs and serves
endpoints, where a `Mix` says which slot each row of a batch has. It needs torch and transformers alone; adapters come
from and go to plain PEFT folders.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ftlib.models.bank_heads import BankHead
from ftlib.models.bank_parts import MAGNITUDE, Part
from ftlib.models.bank_routes import Mix, Route, bmm
from ftlib.models.dora import squared_norms, with_magnitudes
from ftlib.models.onednn import gradient, is_plain, product

PREFIX = "base_model.model."  # of PEFT's names


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
        if not any(bank.ranks[slot][self.number] for slot in bank.route.slots):
            return self.base(x)
        base = None if is_plain(self.base) else self.base(x)
        out: Tensor = _Product.apply(x, base, bank.anchor, self, bank.route)
        if any(bank.has_magnitudes(slot, self.number) for slot in bank.route.slots):
            return with_magnitudes(out, self, bank, bank.route)
        return out

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
        (a, b), scale = bank.matrices(layer.number, x.dtype), bank.scale(layer.number, x.dtype)
        mask = route.masks(bank.targets[layer.number], x)
        low = bmm(x if mask is None else x * mask, a).mul_(scale)
        shared = x.stride(0) == 0 and len(x) > 1  # every slot sees the same tokens: the base's product is made once
        if base is not None:
            out = torch.baddbmm(base, low, b)
        elif shared:
            out = torch.baddbmm(product(layer.base, x[:1]).expand(len(x), -1, -1), low, b)
        else:
            out = product(layer.base, x).baddbmm_(low, b)
        ctx.save_for_backward(x, low, mask)
        ctx.layer, ctx.route, ctx.matrices = layer, route, (a, b, scale)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, low, mask = ctx.saved_tensors
        layer, route = ctx.layer, ctx.route
        (bank,), (a, b, scale) = layer._bank, ctx.matrices
        grad_a, grad_b = bank.gradients(layer.number)
        dlow = bmm(dy, b.transpose(1, 2)).mul_(scale)
        route.add(grad_b, low.transpose(1, 2), dy)
        route.add(grad_a.transpose(1, 2), dlow.transpose(1, 2), x if mask is None else x * mask)
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


class _Now(threading.local):
    """What a thread computes with a bank."""

    def __init__(self) -> None:
        self.route: Route | Mix | None = None
        self.rows: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self.grads: Tensor | None = None


@dataclass
class LoraBank:
    """`slots` adapters over the `targets` (names of linear layers) of `model`, which is changed in place.

    `rank` is R, the largest rank that a slot can have. `heads` are linear layers that a slot trains whole, its own copy
    each. With `dora`, slots may have a magnitude for each row of a layer.
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
    dora: bool = False
    _now: _Now = field(default_factory=lambda: _Now(), init=False)

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.parts: list[Part] = []
        self.layers = []
        for number, name in enumerate(self.targets):
            base = self.model.get_submodule(name)
            layer = BankLinear(base, self, number)
            _replace(self.model, name, layer)
            self.layers.append(layer)
            inputs, outputs = _shape(base)
            self._add(f"{name}.lora_A.weight", (inputs, self.rank), 1, number)
            self._add(f"{name}.lora_B.weight", (self.rank, outputs), 0, number)
        bases: list[Any] = [self.model.get_submodule(name) for name in self.heads]
        weights = [
            self._add(f"{name}.weight", (base.in_features, base.out_features))
            for name, base in zip(self.heads, bases, strict=True)
        ]
        self.magnitudes = [
            self._add(f"{name}.{MAGNITUDE}", (_shape(layer.base)[1],), layer=number)
            for number, (name, layer) in enumerate(zip(self.targets, self.layers, strict=True))
            if self.dora
        ]
        self.norms = [squared_norms(layer.base) for layer in self.layers if self.dora]
        self.decayed = self.parts[-1].end  # behind it lie vectors, which weight decay leaves alone
        biases = [
            None if base.bias is None else self._add(f"{name}.bias", (base.out_features,))
            for name, base in zip(self.heads, bases, strict=True)
        ]
        self.head_layers = [
            BankHead(base, self, weight, bias) for base, weight, bias in zip(bases, weights, biases, strict=True)
        ]
        for name, head in zip(self.heads, self.head_layers, strict=True):
            _replace(self.model, name, head)
        self.size = self.parts[-1].end  # D
        self.resize(self.slots)
        self.anchor = torch.zeros((), requires_grad=True)  # makes autograd come by where x itself needs no gradient

    def resize(self, slots: int) -> None:
        """Another number of slots, all of them empty."""
        self.slots = slots
        self.weights = self._grads = torch.zeros(0)  # freed before the new ones are taken
        self.weights = torch.zeros(slots, self.size, device=self.device, dtype=self.dtype)
        self._grads = torch.zeros(0 if self.frozen else slots, self.size, device=self.device)
        self.scales = torch.zeros(slots, len(self.targets), device=self.device)
        self.ranks = [[0] * len(self.targets) for _ in range(slots)]
        self.doras = [False] * slots
        self._views: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def _add(self, name: str, shape: tuple[int, ...], rank_dim: int | None = None, layer: int | None = None) -> Part:
        start = self.parts[-1].end if self.parts else 0
        self.parts.append(Part(name, start, shape, rank_dim, layer))
        return self.parts[-1]

    @property
    def route(self) -> Route | Mix | None:
        """Where the rows of the calling thread's batches go."""
        return self._now.route

    @route.setter
    def route(self, route: Route | Mix | None) -> None:
        self._now.route = route

    @property
    def grads(self) -> Tensor:
        """[slots, D]: what the calling thread's backward passes add their gradients to."""
        return self._grads if self._now.grads is None else self._now.grads

    @contextmanager
    def adding_to(self, grads: Tensor) -> Iterator[None]:
        """Within, backward passes of the calling thread add their gradients to another table: two threads that add to
        one would lose some, and their order would change bits."""
        self._now.grads = grads
        try:
            yield
        finally:
            self._now.grads = None

    @contextmanager
    def routed(self, route: Route | Mix | None) -> Iterator[None]:
        """Within, rows of every batch of the calling thread go to the slots of `route`; with None the base answers
        alone."""
        now = self._now
        before = now.route, now.rows
        now.route, now.rows = route, {}
        try:
            yield
        finally:
            now.route, now.rows = before

    def _routed(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weights [N, D] and scales [N, layers] of the route's slots, in the dtype of the computation. They are made
        once, for all layers, forward and backward; where the slots stand side by side in float32, they are views."""
        route, rows = self._now.route, self._now.rows
        if dtype not in rows:
            assert isinstance(route, Route)
            rows[dtype] = route.of(self.weights).to(dtype), route.of(self.scales).to(dtype)
        return rows[dtype]

    def matrices(self, layer: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A [N, in, R] and B [N, R, out] of a layer, of the route's slots."""
        return self.first(layer, len(self.ranks), self._routed(dtype)[0])

    def scale(self, layer: int, dtype: torch.dtype) -> Tensor:
        """[N, 1, 1]: what a layer's low-rank products are multiplied by, of the route's slots."""
        return self._routed(dtype)[1][:, layer].view(-1, 1, 1)

    def scaled(self, slots: Sequence[int], dtype: torch.dtype) -> Tensor:
        """[len(slots), D] in `dtype`: the weights of these slots, their scales in B, for a `Mix`."""
        weights = self.weights[list(slots)]
        for part in self.parts:
            if part.rank_dim == 0:
                part.of(weights).mul_(self.scales[list(slots), part.layer].view(-1, 1, 1))
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

    # --- one slot ---------------------------------------------------------------------------------------------

    def configure(self, slot: int, r: int, scale: float) -> None:
        """Gives an empty slot one rank and one scale for all layers: lora_alpha / r, or lora_alpha / sqrt(r) of
        rsLoRA."""
        self.configure_layers(slot, dict.fromkeys(self.targets, (r, scale)))

    def configure_layers(self, slot: int, layers: Mapping[str, tuple[int, float]], dora: bool = False) -> None:
        """Gives an empty slot the rank and the scale of each layer that it adapts."""
        if dora and not self.dora:
            raise ValueError("this bank has no magnitudes")
        for name, (r, _) in layers.items():
            if name not in self.targets:
                raise ValueError(f"this bank has no layer {name}")
            if not 1 <= r <= self.rank:
                raise ValueError(f"rank {r} does not fit into a bank of rank {self.rank}")
        self.weights[slot].zero_()
        self.grads[slot : slot + 1].zero_()
        self.doras[slot] = dora
        shapes = [layers.get(name, (0, 0.0)) for name in self.targets]
        self.ranks[slot] = [r for r, _ in shapes]
        self.scales[slot] = torch.tensor([scale for _, scale in shapes], device=self.device)

    def has_magnitudes(self, slot: int, layer: int) -> bool:
        """Whether a slot trains the magnitudes of a layer."""
        return self.doras[slot] and self.ranks[slot][layer] > 0

    def shape(self, slot: int) -> dict[str, tuple[int, float]]:
        """The rank and the scale of each layer that a slot adapts."""
        shapes = zip(self.targets, self.ranks[slot], self.scales[slot].tolist(), strict=True)
        return {name: (r, scale) for name, r, scale in shapes if r}

    def draw(self, slot: int, gaussian: bool = False) -> None:
        """The first weights, in PEFT's order from torch's global generator: a layer's A and B as nn.Linear makes them,
        then A once more (kaiming uniform, or normal with deviation 1/r). B is zero."""
        state = {}
        for name, r, layer in zip(self.targets, self.ranks[slot], self.layers, strict=True):
            if not r:
                continue
            inputs, outputs = _shape(layer.base)
            a = nn.Linear(inputs, r, bias=False)
            nn.Linear(r, outputs, bias=False)
            nn.init.normal_(a.weight, std=1 / r) if gaussian else nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
            state[f"{name}.lora_A.weight"] = a.weight.detach()
        if self.doras[slot]:  # of a B that is zero
            state |= {part.name: norms.sqrt() for part, norms in zip(self.magnitudes, self.norms, strict=True)}
        self.load(slot, state)

    def load(self, slot: int, state: Mapping[str, Tensor], into: Tensor | None = None) -> None:
        """Takes a slot's tensors by their names, in PEFT's shapes ([r, in], [out, r]); the rest becomes zero."""
        flat = self.weights if into is None else into
        flat[slot].zero_()
        for part in self.parts:
            if part.name in state:
                tensor = state[part.name]
                tensor = tensor.t() if tensor.dim() == 2 else tensor
                part.of(flat)[slot][tuple(slice(size) for size in tensor.shape)] = tensor.to(flat)

    def state(self, slot: int, of: Tensor | None = None) -> dict[str, Tensor]:
        """A slot's tensors by their names, in PEFT's shapes, cut to the slot's ranks. `of`: the weights, or anything
        that lies as they do (gradients, an optimizer's moments)."""
        flat, found = self.weights if of is None else of, {}
        for part in self.parts:
            view = self.view(slot, part, flat)
            if view is not None:
                found[part.name] = view.detach().to("cpu", copy=True).contiguous()
        return found

    def view(self, slot: int, part: Part, flat: Tensor) -> Tensor | None:
        """What a slot has of a part, in PEFT's shape; None of a layer that it does not adapt."""
        tensor, r = part.of(flat)[slot], self._rank(slot, part)
        if r == 0 or (part.kind == MAGNITUDE and not self.doras[slot]):
            return None
        if r is not None and part.rank_dim is not None:
            tensor = tensor.narrow(part.rank_dim, 0, r)
        return tensor.t() if tensor.dim() == 2 else tensor

    def _rank(self, slot: int, part: Part) -> int | None:
        """A slot's rank in the layer of a part; None for a head."""
        return None if part.layer is None else self.ranks[slot][part.layer]

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
        self.doras[one], self.doras[other] = self.doras[other], self.doras[one]

    def detach(self) -> None:
        """Puts the model's own layers back."""
        for name, layer in zip(self.targets, self.layers, strict=True):
            _replace(self.model, name, layer.base)
        for name, head in zip(self.heads, self.head_layers, strict=True):
            _replace(self.model, name, head.base)

    def parameters_of(self, slot: int) -> int:
        """How many numbers a slot trains."""
        views = (self.view(slot, part, self.weights) for part in self.parts)
        return sum(view.numel() for view in views if view is not None)


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _shape(layer: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer; GPT-2's Conv1D keeps its weight as [in, out]."""
    if hasattr(layer, "in_features"):
        return layer.in_features, layer.out_features
    inputs, outputs = layer.weight.shape
    return inputs, outputs
