"""What the host knows, on its way to a device that nobody waits for."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host, on a device. The host does not wait for its arrival; what the device computes does."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from other memory, the host waits for the copy
    return tensor.to(device, non_blocking=True)
