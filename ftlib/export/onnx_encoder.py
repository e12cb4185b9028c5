"""`--to onnx`: an encoder that sorts texts, as one ONNX graph that onnxruntime runs."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from ftlib.config import ModelSection
from ftlib.errors import FtlibError, InputError
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Reading, Trained
from ftlib.export.program import version_of
from ftlib.export.source import Source, tokens_of
from ftlib.models.adapters.merge import check_mergeable
from ftlib.models.base import load_model, load_tokenizer
from ftlib.registry.agreement import Logits, Probes

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LIMIT = 1e-3  # of float32 in another program's order of additions


@dataclass(frozen=True)
class OnnxRuntime:
    """A graph of input_ids and attention_mask [rows, tokens] to logits [rows, classes]."""

    name: str
    session: Any
    tokenizer: Any

    def logits(self, probes: Probes) -> Logits:
        return [self._of(ids) for ids in probes]

    def _of(self, ids: list[int]) -> torch.Tensor:
        given = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}
        (found,) = self.session.run(["logits"], given)
        return torch.from_numpy(found[0])

    def reading(self, texts: Sequence[str]) -> Reading:
        return Reading(self.tokenizer.chat_template, tokens_of(self.tokenizer, list(texts)))

    def layers(self, names: Iterable[str]) -> None:
        """A graph has no layers."""

    def contender(self, name: str) -> None:
        """A classifier writes no answers."""


class OnnxEncoder(Format):
    """model.onnx, config.json with the names of the classes, and the tokenizer."""

    def check(self, source: Source, dtype: str | None) -> None:
        if not source.classifies:
            raise InputError(f"--to onnx is for models that sort texts, and {source.owner} writes: use --to gguf.")
        if source.kind == "adapter":
            check_mergeable(source.weights)
        lacking = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
        if lacking:
            raise InputError(f"--to onnx needs {', '.join(lacking)}: pip install 'ftlib[onnx]'.")

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        plain = folder / ".merged"
        source.merged(plain, "float32")
        head = source.candidate.experiment.method.head
        section = ModelSection(name_or_path=str(plain), attn_implementation="eager")
        model = load_model(section, head, source.labels).eval()
        _export(model, folder / FILE)
        AutoConfig.from_pretrained(plain).save_pretrained(folder)
        source.candidate.tokenizer.save_pretrained(folder)
        shutil.rmtree(plain)

    def program(self, source: Source, folder: Path) -> OnnxRuntime:
        """onnxruntime. Raises FtlibError where the classes have other names than in training."""
        import onnxruntime

        told = AutoConfig.from_pretrained(folder).id2label
        if source.labels and [told[number] for number in sorted(told)] != source.labels:
            raise FtlibError(f"the export of {source.owner}: its classes are {[*told.values()]}, not {source.labels}.")
        session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
        tokenizer = load_tokenizer(ModelSection(name_or_path=str(folder)), source.candidate.experiment.method.head)
        return OnnxRuntime(version_of("onnxruntime"), session, tokenizer)

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        return Limits(max(LIMIT, trained.tolerance))


FORMATS = {"onnx": OnnxEncoder()}


class _Logits(torch.nn.Module):
    """Two tensors in, one out: a graph has no keywords."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _export(model: Any, file: Path) -> None:
    """Rows and tokens are free in the graph."""
    example = tuple(torch.ones(2, 7, dtype=torch.long) for _ in range(2))  # one tensor twice would be one input
    free = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=model.config.max_position_embeddings)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's words about its own names, and about axes that share one
        torch.onnx.export(
            _Logits(model).eval(),
            example,
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=(free, free),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
