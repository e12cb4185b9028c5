"""What training with rounded weights (`train.qat`) does not go with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.config.adapters import Lora
from ftlib.config.methods import DPO, GRPO, KTO, RLOO
from ftlib.config.rule import Rule

if TYPE_CHECKING:
    from ftlib.config.experiment import Experiment


def _adds_to_weights(experiment: Experiment) -> bool:
    """Whether the trained model is the base with other weights: trained as a whole, or plain LoRA."""
    adapter = experiment.adapter
    if isinstance(adapter, Lora):
        return not adapter.use_dora and not adapter.lora_dropout
    return adapter is None or adapter.saves == "model"


ROUNDING: tuple[Rule, ...] = (
    Rule(
        "train.qat",
        lambda e: e.train.qat and not _adds_to_weights(e),
        "it rounds the sum of a weight and what a LoRA adds to it, and here there is no such sum",
        "null, or adapter: {type: lora} with use_dora: false and lora_dropout: 0.0, or adapter: null",
    ),
    Rule(
        "train.qat",
        lambda e: e.train.qat and e.model.quantization,
        "the weights of the base are rounded already",
        "null, or model.quantization: null",
    ),
    Rule(
        "train.qat",
        lambda e: e.train.qat and e.method.head != "causal_lm",
        "ftlib export makes int4, int8 and fp8 of models that write",
        "null, or method: {type: sft}",
    ),
    Rule(
        "train.qat",
        lambda e: e.train.qat and isinstance(e.method, DPO | KTO | GRPO | RLOO) and e.method.beta > 0,
        "the reference, which the model is held to, is not rounded",
        "null, or method: {type: orpo}",
    ),
    Rule(
        "train.qat",
        lambda e: e.train.qat and getattr(e.method, "ewc", None) is not None,
        "EWC knows the weights of the base as they are",
        "null, or method.ewc: null",
    ),
)
