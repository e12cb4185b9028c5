"""How one tensor is made of those of several models. All tensors of a call have one shape and one floating dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Formula = Callable[[Sequence[Tensor], Sequence[float], Tensor | None], Tensor]

PARALLEL = 0.9995  # of the cosine: beyond it, the arc is a line within rounding, and its formula divides by nearly 0


def linear(tensors: Sequence[Tensor], weights: Sequence[float], base: Tensor | None = None) -> Tensor:
    """The weighted sum."""
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        if weight:  # what counts 0 is left out, infinities too
            total += weight * tensor
    return total


def slerp(tensors: Sequence[Tensor], weights: Sequence[float], base: Tensor | None = None) -> Tensor:
    """Spherical linear interpolation (Shoemake 1985) of two tensors, each as one vector; the second weight is the share
    of the arc.

    It is the straight line where there is no one arc: for a vector of zeros, and for two that are (nearly) parallel or
    opposite.
    """
    first, second = tensors
    lengths = first.norm() * second.norm()
    cosine = float((first * second).sum() / lengths) if lengths > 0 else 1.0
    if not abs(cosine) <= PARALLEL:
        return linear(tensors, weights)
    angle = math.acos(cosine)
    return linear(tensors, [math.sin(weight * angle) / math.sin(angle) for weight in weights])


def task_arithmetic(tensors: Sequence[Tensor], weights: Sequence[float], base: Tensor | None = None) -> Tensor:
    """The base, and the weighted sum of what each has learned since (Ilharco et al. 2023, arXiv:2212.04089)."""
    assert base is not None
    return base + linear([tensor - base for tensor in tensors], weights)


FORMULAS: dict[str, Formula] = {"linear": linear, "slerp": slerp, "task_arithmetic": task_arithmetic}
