"""`method:` what is learned from the data. One class a method; its trainer is in `ftlib/methods/`.

Besides its keys, a method says in plain words what it needs: `rows`, the kind of rows that `ftlib.data` makes for it,
and `head`, the model class that is trained; and what its evaluations give: `metrics`, and which of its keys they do not
survive (`moves`). Names and defaults of the keys are TRL's.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ftlib.config.methods.base import SHARES, Better, Head, Method, Rows
from ftlib.config.methods.distillation import Distill
from ftlib.config.methods.merging import Merge
from ftlib.config.methods.online import GRPO, RLOO, RewardFunction
from ftlib.config.methods.preference import DPO, KTO, ORPO, DPOLoss, Reward, SimPO
from ftlib.config.methods.supervised import SFT, Classify, Pretrain

__all__ = [
    "SHARES",
    "DPO",
    "GRPO",
    "KTO",
    "ORPO",
    "RLOO",
    "SFT",
    "Better",
    "Classify",
    "DPOLoss",
    "Distill",
    "Head",
    "Merge",
    "Method",
    "MethodSection",
    "Pretrain",
    "Reward",
    "RewardFunction",
    "Rows",
    "SimPO",
]

MethodSection = Annotated[
    SFT | Pretrain | Classify | DPO | KTO | ORPO | SimPO | Reward | GRPO | RLOO | Distill | Merge,
    Field(discriminator="type"),
]
"""The union of all of them."""
