"""Optimizers by their names: most are transformers', and so are ours."""

from __future__ import annotations

from typing import Any

from ftlib.convert.conversion import Conversion
from ftlib.errors import nearest

# The names of transformers 5; importing them would take seconds.
NAMES = (
    "adamw_torch adamw_torch_fused adamw_torch_4bit adamw_torch_8bit adafactor adamw_anyprecision ademamix "
    "ademamix_8bit sgd adagrad adamw_bnb_8bit adamw_8bit lion_8bit lion_32bit paged_adamw_32bit "
    "paged_adamw_8bit paged_ademamix_32bit paged_ademamix_8bit paged_lion_32bit paged_lion_8bit rmsprop "
    "rmsprop_bnb rmsprop_bnb_8bit rmsprop_bnb_32bit galore_adamw galore_adamw_8bit galore_adafactor "
    "galore_adamw_layerwise galore_adamw_8bit_layerwise galore_adafactor_layerwise lomo adalomo grokadamw "
    "schedule_free_radam schedule_free_adamw schedule_free_sgd apollo_adamw apollo_adamw_layerwise "
    "stable_adamw"
)
# Older names, and those of one tool, of the same optimizer.
SAME = {
    "adamw_hf": "adamw_torch",
    "adamw_apex_fused": "adamw_torch_fused",
    "adamw": "adamw_torch",
    "adamw_torch_xla": "adamw_torch",
    "paged_adamw": "paged_adamw_32bit",
    "ao_adamw_4bit": "adamw_torch_4bit",
    "ao_adamw_8bit": "adamw_torch_8bit",
}


def optimizer(conversion: Conversion, key: str, value: Any) -> None:
    """The optimizer by its name."""
    if value in NAMES.split():
        return conversion.map(key, {"train.optim": value})
    if value in SAME:
        return conversion.map(key, {"train.optim": SAME[value]})
    return conversion.refuse(
        key, f"{value!r} is not among transformers' optimizers: choose one.{nearest(str(value), NAMES.split())}"
    )
