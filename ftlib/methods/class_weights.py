"""How much each class of a classifier counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ftlib.config import Classify
from ftlib.errors import ConfigError, nearest


def class_weights(method: Any, data: Any) -> torch.Tensor | None:
    """One weight a class, 1 on average over the training rows; None where all count the same."""
    if not isinstance(method, Classify) or method.class_weights == "none":
        return None
    names, counts = data.report.labels, np.bincount(data.train["labels"], minlength=len(data.report.labels))
    if method.class_weights == "balanced":
        return torch.tensor(counts.sum() / (len(names) * np.maximum(counts, 1)), dtype=torch.float32)
    unknown = sorted(set(method.class_weights) - set(names))
    if unknown:
        raise ConfigError(f"method.class_weights: no row has the label '{unknown[0]}'.{nearest(unknown[0], names)}")
    weights = np.array([method.class_weights.get(name, 1.0) for name in names])
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)
