"""Quantization-aware training: linear layers whose weights are rounded in each forward pass (`train.qat`).

They are rounded as `ftlib export --to int4`, `int8` or `fp8` rounds them, by torchao. A gradient goes through the
rounding as if there were none (the straight-through estimator, Bengio et al. 2013, arXiv:1308.3432; Jacob et al. 2018,
arXiv:1712.05877). What a LoRA adds is added before: the export rounds the sum too. The weights that are trained and
saved are the unrounded ones.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear

from ftlib.config.train import Rounding
from ftlib.errors import ConfigError

GROUP = 32  # weights of a row that have one scale in int4


@cache
def torchao_config(to: Rounding) -> Any:
    """How torchao rounds: int8 and fp8 (e4m3) with a scale a row, int4 with one for each `GROUP` weights of it."""
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    if to == "int8":
        return Int8WeightOnlyConfig()
    if to == "fp8":
        return Float8WeightOnlyConfig()
    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))


def check_rounding(model: nn.Module, to: Rounding) -> None:
    """Raises ConfigError where torchao is missing, and for a model whose layers it does not round."""
    if importlib.util.find_spec("torchao") is None:
        raise ConfigError("train.qat needs torchao: pip install 'ftlib[quantize]', or use train.qat: null.")
    layers = _linears(model)
    if not layers:
        raise ConfigError(f"train.qat: {type(model).__name__} has no layer of torch's Linear to round: use null.")
    odd = next((name for name, layer in layers.items() if to == "int4" and layer.in_features % GROUP), None)
    if odd is not None:
        raise ConfigError(
            f"train.qat: int4 rounds {GROUP} weights of a row together, and {odd} has {layers[odd].in_features} in a "
            "row: use int8."
        )


def round_weights(model: nn.Module, to: Rounding) -> None:
    """Has the linear layers of a decoder, with or without a plain LoRA, compute with rounded weights from now on. The
    output layer does not: no export rounds it. Raises ConfigError as `check_rounding`."""
    check_rounding(model, to)
    own, adapted = _linears(model), [layer for layer in model.modules() if isinstance(layer, LoraLinear)]
    within = {id(layer.get_base_layer()): layer for layer in adapted}
    for layer in own.values():
        if id(layer) in within:
            _become(within[id(layer)], RoundedLora, to)
        elif adapted and not layer.weight.requires_grad:  # it is not saved either: once is enough
            layer.weight.data = rounded(layer.weight.data, to)
        else:
            _become(layer, RoundedLinear, to)


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The model's own linear layers by their names, without the output's and those of an adapter."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and layer is not output and ".lora_" not in name
    }


def _become(layer: nn.Module, kind: type[nn.Module], to: Rounding) -> None:
    """Another class with the same weights under the same names: copies of the model round too, and what is saved is
    named as ever."""
    layer.__class__ = kind
    layer.rounded_to = to


class RoundedLinear(nn.Linear):
    """A linear layer that computes with its weight rounded."""

    rounded_to: Rounding

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, rounded(self.weight, self.rounded_to), self.bias)


class RoundedLora(LoraLinear):
    """A linear layer with LoRA adapters, which computes with the rounded sum of its weight and theirs."""

    rounded_to: Rounding

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base = self.get_base_layer()
        weight = base.weight
        with torch.autocast(x.device.type, enabled=False):
            for name in () if self.disable_adapters else self.active_adapters:
                if name in self.lora_A:
                    weight = weight + self.get_delta_weight(name).to(weight.dtype)
        return linear(x, rounded(weight, self.rounded_to), base.bias)


def rounded(weight: Tensor, to: Rounding) -> Tensor:
    """A weight [out, in] as an export rounds it. Its gradient is the weight's."""
    found: Tensor = _StraightThrough.apply(weight, to)
    return found


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, to: Rounding) -> Tensor:
        from torchao.quantization import quantize_

        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
        quantize_(layer, torchao_config(to))
        found: Tensor = layer.weight.dequantize()
        return found.to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
