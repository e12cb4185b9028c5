"""What is exported: a version of the registry or a trial, with what its training has left to compare with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from ftlib.config import ModelSection
from ftlib.errors import DataError, FtlibError, InputError
from ftlib.evaluation.answers import ends_of
from ftlib.export.gate import Reading, Trained
from ftlib.export.layers import layers_of
from ftlib.models.adapters.merge import check_mergeable, merge
from ftlib.models.base import where
from ftlib.models.rounded import round_weights
from ftlib.registry.agreement import QUANTIZED, TOLERANCE, Logits, Probes, beside_base, check_finite, free, logits_of
from ftlib.registry.bases import base_of
from ftlib.registry.card import CARD, base_on_hub, card
from ftlib.registry.gate import BUILT_IN, Candidate

# What programs cut into tokens differently: digits, blanks, apostrophes, letters and signs of other scripts.
HARD_TEXTS = (
    "In 2026 it's 3.14, not 31415!\n\n\t\"naïve\"  東京 🙂 don't\r\n    return x['key'] == 42",
    "Привет, мир!   Ünïcödé ß  1234567890",
)


@dataclass(frozen=True)
class Source:
    """`candidate` is loaded as the promotion gate loads it. `name` is made of letters that any file system takes."""

    candidate: Candidate
    name: str

    @property
    def owner(self) -> str:
        return self.candidate.owner

    @property
    def weights(self) -> Path:
        return self.candidate.version.weights

    @property
    def kind(self) -> str:
        return self.candidate.version.kind

    @cached_property
    def base(self) -> ModelSection:
        """How its base is loaded. Raises FtlibError where that is gone, or another one by now."""
        return base_of(self.candidate.manifest, self.owner)

    @cached_property
    def base_name(self) -> str:
        """What another program can load the base by: its name on the Hub, or an ordinary folder of this machine."""
        return where(self.base)

    @property
    def hub_name(self) -> str | None:
        """The name on the Hub of the base that all training began with; None for a folder of somebody's machine."""
        return base_on_hub(self.candidate.manifest)

    def card(self, whole: bool) -> str:
        """The model card of the version, or of the trial as it would be promoted. `whole` is said of an export that
        holds a whole model."""
        kept = self.candidate.version.path / CARD
        if kept.is_file() and whole == (self.kind == "model"):
            return kept.read_text(encoding="utf-8")
        manifest = self.candidate.manifest | {"kind": "model" if whole else "adapter"}
        return card(self.name, manifest, {}, {})

    @property
    def labels(self) -> list[str]:
        return list(self.candidate.manifest.get("labels") or ())

    @property
    def classifies(self) -> bool:
        return self.candidate.experiment.method.head != "causal_lm"

    @cached_property
    def template(self) -> str | None:
        """The chat template of its training. Raises FtlibError where the one beside its weights is another."""
        self.candidate.check_template()
        template: str | None = self.candidate.tokenizer.chat_template
        return template

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer: the tokenizer's, and those that generation_config.json names."""
        place = self.base_name if self.kind == "adapter" else str(self.weights)
        return ends_beside(place, self.candidate.tokenizer, self.base.revision if self.kind == "adapter" else None)

    def merged(self, folder: Path, dtype: str | None = None) -> None:
        """Writes the whole model, in a dtype of torch or as it was trained. Raises InputError for an adapter that no
        base can absorb."""
        if self.kind == "adapter":
            check_mergeable(self.weights)
            merge(self.weights, self.base, folder, dtype)
            return
        model = self.candidate.load()
        (model if dtype is None else model.to(getattr(torch, dtype))).save_pretrained(folder)
        self.candidate.tokenizer.save_pretrained(folder)
        free()

    def trained(self, also: Callable[[str, Any], None] = lambda who, model: None, to: str = "") -> Trained:
        """What was trained, in logits. `also` gets the loaded base ("base") and the tuned model ("trained"). Where it
        was trained for the format `to` (`train.qat`), its weights are rounded, as they were in training.

        Raises FtlibError for weights that do not fit their base, and for logits that are no numbers.
        """
        probes, told = self.candidate.probes()
        untuned: Logits | None
        if self.kind == "adapter":
            untuned, model = self._beside(probes, also)
        else:
            untuned = self._base_of_whole(probes, also)
            model = self.candidate.load()
        qat = self.candidate.experiment.train.qat
        if qat is not None and qat == to:
            round_weights(model, qat)
        tuned = logits_of(model, probes)
        check_finite(tuned, self.owner)
        also("trained", model)
        width = tuned[0].shape[-1] if self.classifies else min(len(self.candidate.tokenizer), tuned[0].shape[-1])
        reading, tolerance, layers = self._reading(model, probes), self._tolerance(model.dtype), layers_of(model)
        del model
        free()
        named, texts = f"{len(probes)} {told}", self.texts(probes)
        return Trained(probes, named, texts, untuned, tuned, width, tolerance, reading, layers)

    def texts(self, probes: Probes) -> list[str]:
        """What programs are asked to cut into tokens."""
        return [*(str(self.candidate.tokenizer.decode(ids)) for ids in probes), *BUILT_IN, *HARD_TEXTS]

    def _tolerance(self, dtype: Any) -> float:
        quantized = QUANTIZED[self.candidate.experiment.model.quantization]
        return max(TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16]), quantized)

    def _beside(self, probes: Probes, also: Callable[[str, Any], None]) -> tuple[Logits, Any]:
        base = self.candidate.load()
        untuned = logits_of(base, probes)
        also("base", base)
        return untuned, beside_base(base, self.weights, self.owner)

    def _base_of_whole(self, probes: Probes, also: Callable[[str, Any], None]) -> Logits | None:
        """The logits of the base that all weights were tuned of; None where there is none any more, or never was."""
        if self.candidate.experiment.model.init == "random" or not self.candidate.manifest.get("base"):
            return None
        try:
            base = self.candidate.ready(self.base)
        except (FtlibError, DataError):
            return None
        untuned = logits_of(base, probes)
        also("base", base)
        del base
        free()
        return untuned

    def _reading(self, model: Any, probes: Probes) -> Reading:
        tokenizer = self.candidate.tokenizer
        ends = None if self.classifies else ends_of(model, tokenizer)
        return Reading(self.template, tokens_of(tokenizer, self.texts(probes)), ends, tied(model))


def ends_beside(place: str, tokenizer: Any, revision: str | None = None) -> frozenset[int]:
    """The tokens that end an answer of the model in a folder, or on the Hub."""
    told: Any = None
    with suppress(OSError):
        told = GenerationConfig.from_pretrained(place, revision=revision).eos_token_id
    named = told if isinstance(told, list) else [told]
    return frozenset(number for number in (*named, tokenizer.eos_token_id) if isinstance(number, int))


def tokens_of(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Without what a tokenizer adds at the ends: a chat template writes that itself."""
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def tied(model: Any) -> bool | None:
    """Whether one matrix is both embedding and output; None for a model that does not write."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    output = model.get_output_embeddings()
    if output is None:
        return None
    return bool(output.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr())


def check_writes(source: Source, to: str) -> None:
    """Raises InputError for a model that sorts texts, where a format is of models that write."""
    if source.classifies:
        raise InputError(
            f"--to {to} is for models that write, and {source.owner} sorts texts: use --to onnx or merged."
        )
