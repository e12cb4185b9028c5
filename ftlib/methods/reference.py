"""What the reference model of a preference method is, as a key: its log-probabilities are computed once a base and
data set, and every trial of every sweep over them reads them again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ftlib.config import Experiment, Lora
from ftlib.methods.trl_private import OpenPreference
from ftlib.models.adapters.start import adapter_fingerprint
from ftlib.models.base import identity

NEUTRAL = ("adalora", "ia3", "vera", "oft", "boft", "bottleneck")


def _starts_as_base(experiment: Experiment) -> bool:
    """Whether the untrained adapter changes nothing: TRL's reference is the base with the adapter's first weights."""
    adapter = experiment.adapter
    if isinstance(adapter, Lora):
        return adapter.start is None and adapter.init_lora_weights in (True, "gaussian")
    return adapter is None or adapter.saves == "model" or adapter.type in NEUTRAL


def _start(experiment: Experiment) -> Any:
    """What the reference depends on besides the base: the adapter with which training begins. None where that adapter
    changes nothing."""
    adapter = experiment.adapter
    if _starts_as_base(experiment):
        return None
    if isinstance(adapter, Lora) and adapter.start is not None:
        return adapter_fingerprint(Path(adapter.start))
    return experiment.to_dict()["adapter"], experiment.train.seed


def reference_of(experiment: Experiment, model: Any) -> str:
    """The key of the reference: the SHA-256, in hex, of all that its log-probabilities depend on besides the data."""
    base = experiment.model
    parts = {
        "base": identity(base, model),
        "model": base.model_dump(mode="json", exclude={"name_or_path", "gguf_file", "revision", "tokenizer"}),
        "seed": experiment.train.seed if base.init == "random" else None,
        "dtype": str(next(model.parameters()).dtype),
        "method": experiment.method.type,
        "start": _start(experiment),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class OneReference(OpenPreference):
    """Before a TRL trainer: keeps the reference's log-probabilities beside the rows, for every later trial."""

    def __init__(self, reference: str, **kwargs: Any) -> None:
        self.reference_key = reference  # TRL's own key hashes the adapter too, which no two trials share
        super().__init__(**kwargs)
