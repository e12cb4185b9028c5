"""`adapter:` which weights are added and trained; `null` trains the whole model.

One class a kind, its keys named as PEFT names them; `ftlib/models/adapters/build.py` builds them. Besides its keys, a
section says two things in plain words: `saves`, whether a trial leaves a small adapter or a whole model, and
`mergeable`, whether the adapter can be computed into its base (`ftlib merge`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ftlib.config.adapters.base import Adapter, Modules
from ftlib.config.adapters.inner import IA3, Bottleneck, Fusion
from ftlib.config.adapters.low_rank import AdaLora, Lora, Vera
from ftlib.config.adapters.own_weights import BitFit, Layers
from ftlib.config.adapters.prompts import Prefix, Prompt, PTuning
from ftlib.config.adapters.rotations import Boft, Oft

__all__ = [
    "AdaLora",
    "Adapter",
    "AdapterSection",
    "BitFit",
    "Boft",
    "Bottleneck",
    "Fusion",
    "IA3",
    "Layers",
    "Lora",
    "Modules",
    "Oft",
    "PTuning",
    "Prefix",
    "Prompt",
    "Vera",
]

AdapterSection = Annotated[
    Lora | AdaLora | IA3 | Vera | Oft | Boft | Prefix | Prompt | PTuning | Bottleneck | Fusion | BitFit | Layers,
    Field(discriminator="type"),
]
"""The union of all of them."""
