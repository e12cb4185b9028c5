"""Experts in fewer bits (`model.quantize_moe_experts`).

transformers keeps all experts of a layer as one weight, which is no linear layer, so bitsandbytes leaves it as it is.
Here it is kept in few bits, and made plain while its layer computes.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ftlib.errors import ConfigError


class _Quantized(nn.Module):
    """Quantized weights as the layer sees them. `dtype` is the type of its inputs, which may be wider than that of the
    weights; None keeps the weights' own."""

    dtype: torch.dtype | None = None

    def forward(self, kept: Tensor) -> Tensor:
        with torch.no_grad():
            plain = self.plain(kept)
        return plain if self.dtype is None else plain.to(self.dtype)

    def plain(self, kept: Tensor) -> Tensor:
        raise NotImplementedError


class _FourBits(_Quantized):
    """nf4 with its constants quantized too, as `ftlib.models.base.quantization` has it for linear layers."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.state = state
        self.count = int(state.shape.numel())

    def plain(self, kept: Tensor) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        self.state.to(kept.device)  # it is no buffer, so it does not follow the model
        found: Tensor = dequantize_4bit(kept, self.state)
        return found


class _EightBits(_Quantized):
    """A scale for each row of each expert, as in LLM.int8."""

    def __init__(self, scales: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("scales", scales)
        self.kept_dtype = dtype

    def plain(self, kept: Tensor) -> Tensor:
        from bitsandbytes.functional import int8_vectorwise_dequant

        found: Tensor = int8_vectorwise_dequant(kept.flatten(0, -2), self.scales)
        return found.view(kept.shape).to(self.kept_dtype)


def quantize_experts(model: nn.Module, quantization: str) -> None:
    """Quantizes every weight [experts, ..., ...] of a loaded model. Raises ConfigError for a model that has none."""
    found = [
        (module, name)
        for path, module in model.named_modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.ndim >= 3 and "expert" in f"{path}.{name}".lower()
    ]
    if not found:
        raise ConfigError(
            f"model.quantize_moe_experts: {type(model).__name__} has no experts in one tensor: use false. "
            "model.quantization covers its linear layers."
        )
    for module, name in found:
        _quantize(module, name, quantization)
    for module in dict.fromkeys(module for module, _ in found):
        _plain_while_it_computes(module)


def _quantize(module: nn.Module, name: str, quantization: str) -> None:
    from bitsandbytes.functional import int8_vectorwise_quant, quantize_4bit

    weight = getattr(module, name).data
    how: _Quantized
    if quantization == "nf4":
        kept, state = quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        how = _FourBits(state)
    else:
        rows, scales, _ = int8_vectorwise_quant(weight.flatten(0, -2).to(torch.float16))
        kept, how = rows.view(weight.shape), _EightBits(scales, weight.dtype)
    setattr(module, name, nn.Parameter(kept, requires_grad=False))
    parametrize.register_parametrization(module, name, how, unsafe=True)


def _plain_while_it_computes(module: nn.Module) -> None:
    """A layer asks for its weights once an expert: they are made plain once for all of them."""
    opened: list[ExitStack] = []

    def before(layer: Any, inputs: tuple[Any, ...]) -> None:
        for listed in _parametrized(layer).values():
            listed[0].dtype = None if torch.is_autocast_enabled(inputs[0].device.type) else inputs[0].dtype
        stack = ExitStack()
        stack.enter_context(parametrize.cached())
        opened.append(stack)

    module.register_forward_pre_hook(before)
    module.register_forward_hook(lambda layer, inputs, output: opened.pop().close(), always_call=True)


def has_quantized_experts(model: nn.Module) -> bool:
    """Whether a model has experts in few bits."""
    return any(isinstance(part, _Quantized) for part in model.modules())


def plain_experts(model: nn.Module) -> None:
    """Makes quantized experts ordinary weights for good: what is merged into them is what they were trained beside."""
    for module in list(model.modules()):
        for name, listed in list(_parametrized(module).items()):
            if isinstance(listed[0], _Quantized):
                weight = listed[0].plain(listed.original)
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
                setattr(module, name, nn.Parameter(weight, requires_grad=False))


def _parametrized(module: nn.Module) -> dict[str, Any]:
    return dict(getattr(module, "parametrizations", {}))


def packed_away(model: nn.Module) -> int:
    """How many weights are in bytes with another: two of nf4 share one, which counts as one parameter."""
    four = [part for part in model.modules() if isinstance(part, _FourBits)]
    return sum(part.count - part.count // 2 for part in four)
