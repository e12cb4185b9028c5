"""The deployment that sorts texts: one version a deployment, requests that come together in one forward pass."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from ray import serve

from ftlib.registry import registry
from ftlib.registry.version import Version
from serve.engine.messages import Refusal
from serve.engine.options import EngineOptions

MAX_TEXTS = 64  # of one request
TOGETHER = 16  # requests in one batch
PATIENCE = 0.005  # seconds that the first of a batch waits for others


@dataclass(frozen=True)
class Label:
    """A text's likeliest label, and how likely each is."""

    label: str
    scores: dict[str, float]
    tokens: int


class Classifier:
    """Answers /v1/classify for one version: an adapter with its head, or a whole model."""

    def __init__(self, version: Version, options: EngineOptions, threads: int = 1) -> None:
        """Raises FtlibError when the base is not the one that the version was trained on."""
        import torch
        from peft import PeftModel

        from ftlib.config import ModelSection
        from ftlib.models.adapters.merge import head_of
        from ftlib.models.base import load_model, load_tokenizer
        from ftlib.registry.bases import base_of
        from serve.engine.model import in_folder, room, table

        torch.set_num_threads(threads)
        registry.check_loadable(version)
        labels = version.manifest.get("labels")
        if version.kind == "model":
            model: Any = load_model(in_folder(version), "sequence_classification", labels or _own(version))
        else:
            _, plain = head_of(version.weights)
            model = load_model(base_of(version.manifest, version.id), "sequence_classification", labels or plain)
            model = PeftModel.from_pretrained(model, version.weights)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = (model if getattr(model, "is_quantized", False) else model.to(device)).eval()
        folder: ModelSection = in_folder(version)
        self._tokenizer = load_tokenizer(folder, "sequence_classification")
        self._names = [model.config.id2label[number] for number in range(model.config.num_labels)]
        whole = model.get_base_model() if version.kind == "adapter" else model
        self._limit, self._vocabulary = room(whole), min(table(whole), len(self._tokenizer))

    @serve.batch(max_batch_size=TOGETHER, batch_wait_timeout_s=PATIENCE)  # type: ignore[untyped-decorator]
    async def classify(self, requests: list[list[str]]) -> list[list[Label] | Refusal]:
        """Each request's texts, labelled in order; a Refusal for one that has a text too long."""
        return await asyncio.to_thread(self._answers, requests)

    def _answers(self, requests: list[list[str]]) -> list[list[Label] | Refusal]:
        encoded = [[self._tokenizer(text)["input_ids"] for text in texts] for texts in requests]
        refused = [self._refusal(request) for request in encoded]
        rows = [ids for texts, no in zip(encoded, refused, strict=True) if no is None for ids in texts]
        labels = iter(self._label(rows)) if rows else iter(())
        return [no or [next(labels) for _ in texts] for texts, no in zip(encoded, refused, strict=True)]

    def _refusal(self, texts: list[list[int]]) -> Refusal | None:
        for ids in texts:
            if not ids:
                return Refusal("input: there is not one token in it: give some text.", "input")
            if self._limit is not None and len(ids) > self._limit:
                message = (
                    f"input: it is {len(ids)} tokens long, but this model takes at most {self._limit}: shorten it."
                )
                return Refusal(message, "input", "context_length_exceeded")
            if max(ids) >= self._vocabulary:
                return Refusal(f"input: token {max(ids)} is none of the {self._vocabulary} of this model.", "input")
        return None

    def _label(self, rows: list[list[int]]) -> list[Label]:
        import torch

        batch = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            logits = self._model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        found = []
        for ids, chances in zip(rows, logits.float().softmax(-1).tolist(), strict=True):
            best = max(range(len(chances)), key=chances.__getitem__)
            found.append(Label(self._names[best], dict(zip(self._names, chances, strict=True)), len(ids)))
        return found


def _own(version: Version) -> list[str]:
    """The labels that a whole model's config names."""
    from ftlib.models.base import load_config
    from serve.engine.model import in_folder

    named = load_config(in_folder(version)).id2label
    return [named[number] for number in sorted(named)]
