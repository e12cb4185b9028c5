"""Whether a trial's company changes its bits on this machine: probed on the layers of a base, and said.

Certificate 1 of packs (docs/packs.md) stands on products in which a block of rows is the same bits whatever stands
beside it. Libraries of matrix products do not promise that, and whether they do it depends on the processor. So a host
tries it: one layer of each shape, forward and backward, with the rows of one trial alone, and of several trials that
are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ftlib.models.bank_parts import Part
from ftlib.models.bank_routes import Route
from ftlib.models.lora_bank import LoraBank
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.token_layout import BLOCK, rounded

PRODUCTS = (
    6e9  # multiplications of a probe: tenths of a second of a core. Two blocks of each shape are tried in any case
)
LANES = 16  # a layer's inputs come in multiples of it, or vector instructions meet a trial's last ones elsewhere


@dataclass(frozen=True)
class Isolation:
    """Whether other trials change a trial's bits. `off` is the largest difference that they made, divided by the
    largest number of that result; 0.0 means the same bits. `where` is the shape of the layer in which it was found.
    `why` says what else speaks against equal bits."""

    off: float
    where: str | None
    shapes: int
    why: str | None = None

    @property
    def promise(self) -> str:
        return "rounding" if self.off or self.why else "bits"

    @property
    def sentence(self) -> str:
        if self.off:
            return f"company changes a trial by rounding: up to {self.off:.1e} of a layer's result ({self.where})"
        if self.why:
            return f"company changes a trial by rounding: {self.why}"
        return f"a trial is the same bits in any company (probed on {self.shapes} shapes of layers)"

    def to_dict(self) -> dict[str, Any]:
        return {"promise": self.promise, "sentence": self.sentence, **asdict(self)}


@dataclass(frozen=True)
class _Layer:
    """One layer of its shape. `computed` takes x [N, M, inputs], a trial a row."""

    inputs: int
    outputs: int
    computed: Callable[[Tensor], Tensor]
    trained: tuple[Part, ...]  # what the bank has of it


def probe(base: FrozenBase) -> Isolation:
    """Tries an empty bank's products with the rows that its trials have. Leaves the bank empty."""
    slots = base.bank.slots
    if slots == 1:
        base.bank.resize(2)
    layers = {(layer.inputs, layer.outputs): layer for layer in _layers(base)}
    found = [(_off(base, layer, len(layers)), f"{layer.inputs} x {layer.outputs}") for layer in layers.values()]
    if slots == 1:
        base.bank.resize(1)
    off, where = max(found)
    return Isolation(off, where if off else None, len(found), _condition(base))


def _condition(base: FrozenBase) -> str | None:
    """What the products cannot show, as a sentence."""
    if base.device.type != "cpu" or _dtype(base) != torch.float32:
        return "bits are promised for float32 on a CPU alone"
    odd = [layer.inputs for layer in _layers(base) if layer.inputs % LANES]
    return f"a layer has {odd[0]} inputs, no multiple of {LANES}" if odd else None


def _layers(base: FrozenBase) -> Iterator[_Layer]:
    bank = base.bank
    for a, b, layer in zip(bank.parts[::2], bank.parts[1::2], bank.layers, strict=False):
        yield _Layer(a.shape[0], b.shape[1], layer, (a, b))
    for trained in bank.head_layers:
        yield _Layer(trained.in_features, trained.out_features, trained, tuple(trained.parts))
    if not bank.head_layers:
        head: Any = base.model.get_output_embeddings()
        yield _Layer(head.in_features, head.out_features, head, ())


def _off(base: FrozenBase, layer: _Layer, shapes: int) -> float:
    """The largest difference over all companies that are tried, relative to the largest number of its result."""
    draw = torch.Generator().manual_seed(0)
    with _filled(base.bank, layer, draw):
        return max(_compared(base, layer, rows, trials, draw) for rows, trials in _companies(base, layer, shapes))


def _companies(base: FrozenBase, layer: _Layer, shapes: int) -> set[tuple[int, int]]:
    """(rows of a trial, trials): the smallest, and those of a step, as far as PRODUCTS allows."""
    most = PRODUCTS / (4 * shapes * layer.inputs * layer.outputs)  # rows; forward and backward, two companies
    rows = min(_rows_of_a_step(base), max(BLOCK, int(most / 2) // BLOCK * BLOCK))
    return {(size, max(2, min(base.bank.slots, int(most / size)))) for size in (BLOCK, rows)}


def _rows_of_a_step(base: FrozenBase) -> int:
    tokens = base.data.report.train_tokens // max(1, len(base.data.train))
    return max(BLOCK, rounded(tokens) * base.experiment.train.per_device_train_batch_size)


@contextmanager
def _filled(bank: LoraBank, layer: _Layer, draw: torch.Generator) -> Iterator[None]:
    """All slots have the same weights, so that every trial of a company must come to what one comes to alone."""
    bank.scales.fill_(1.0)
    bank.ranks = [[bank.rank] * len(bank.targets) for _ in range(bank.slots)]
    for part in layer.trained:
        part.of(bank.weights).copy_(torch.randn(part.shape, generator=draw) * 0.1)
    try:
        yield
    finally:
        bank.scales.zero_()
        bank.ranks = [[0] * len(bank.targets) for _ in range(bank.slots)]
        for part in layer.trained:
            part.of(bank.weights).zero_()
            part.of(bank.grads).zero_()


def _compared(base: FrozenBase, layer: _Layer, rows: int, trials: int, draw: torch.Generator) -> float:
    x, dy = (torch.randn(1, rows, size, generator=draw) for size in (layer.inputs, layer.outputs))
    alone = _results(base, layer, x, dy)
    among = _results(base, layer, x.repeat(trials, 1, 1), dy.repeat(trials, 1, 1))
    return max(_difference(one, all_) for one, all_ in zip(alone, among, strict=True))


def _difference(alone: Tensor, among: Tensor) -> float:
    return float((among.float() - alone.float()).abs().max() / alone.float().abs().max().clamp_min(1e-30))


def _results(base: FrozenBase, layer: _Layer, x: Tensor, dy: Tensor) -> list[Tensor]:
    """The layer's output, the gradient of its input, and of what it trains: [N, ...] each."""
    bank, trials = base.bank, len(x)
    for part in layer.trained:
        part.of(bank.grads).zero_()
    x = x.detach().to(base.device, _dtype(base)).requires_grad_()
    with bank.routed(Route(range(trials))):
        out = layer.computed(x)
        out.backward(dy.to(out))
    assert x.grad is not None
    return [out.detach(), x.grad, *[part.of(bank.grads)[:trials].clone() for part in layer.trained]]


def _dtype(base: FrozenBase) -> torch.dtype:
    """The dtype of the layers' inputs."""
    dtype: torch.dtype = base.model.get_input_embeddings().weight.dtype
    return dtype
