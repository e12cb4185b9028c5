"""llama.cpp as the program that runs an artifact, through llama-cpp-python in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize

from ftlib.config import TaskSection
from ftlib.errors import FtlibError
from ftlib.evaluation.loaded import writer_of
from ftlib.evaluation.results import Contender
from ftlib.evaluation.task import Answer, Question
from ftlib.export.environments import python_of
from ftlib.export.gate import Reading
from ftlib.export.gguf_family import Layout
from ftlib.export.layers import Layers, signs
from ftlib.registry.agreement import LAST, Logits, Probes

WORKER = Path(__file__).with_name("llama_cpp_worker.py")
EMBEDDING = "token_embd.weight"
SECONDS = 3600.0  # that a request may take
THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def python() -> Path:
    """The Python that has llama-cpp-python. Raises InputError where there is none."""
    return python_of("llama-cpp")


@dataclass(frozen=True)
class LlamaCpp:
    """A GGUF file, and where it is given a GGUF adapter on it. `tokenizer` writes the prompts of tasks, as ids.

    `template_file` is what llama.cpp is given as --chat-template-file, where the template is not in the model's file.
    `layout` says which tensor of the file is which layer.
    """

    file: Path
    tokenizer: Any
    adapter: Path | None = None
    template_file: Path | None = None
    layout: Layout | None = None

    @cached_property
    def name(self) -> str:
        return f"llama.cpp (llama-cpp-python {self._ask({'do': 'version'})['version']})"

    def logits(self, probes: Probes) -> Logits:
        with tempfile.TemporaryDirectory() as folder:
            arrays = Path(folder) / "logits.npz"
            self._ask({"do": "logits", "probes": [list(ids) for ids in probes], "last": LAST, "to": str(arrays)})
            with np.load(arrays) as found:
                return [torch.from_numpy(found[str(number)]) for number in range(len(probes))]

    def reading(self, texts: Sequence[str]) -> Reading:
        told = self._ask({"do": "read", "texts": list(texts)})
        names = {tensor.name for tensor in GGUFReader(self.file).tensors}
        template = told["template"]
        if self.template_file is not None:
            template = self.template_file.read_text() if self.template_file.is_file() else None
        return Reading(template, told["tokens"], frozenset(told["ends"]), "output.weight" not in names)

    def layers(self, names: Iterable[str]) -> Layers | None:
        """Of the file's own matrices, in the order of transformers' rows. A tied output is the embedding."""
        if self.layout is None:
            return None
        tensors = {tensor.name: tensor for tensor in GGUFReader(self.file).tensors}
        found = {}
        for name in names:
            place = self.layout.name(f"{name}.weight")
            tensor = tensors[place if place in tensors else EMBEDDING]
            matrix = dequantize(tensor.data, tensor.tensor_type)
            product = torch.from_numpy(matrix @ signs(matrix.shape[1]).numpy())
            rows = self.layout.lay(f"{name}.weight", torch.arange(len(product)))
            found[name] = torch.empty(len(product)).index_copy(0, rows, product)
        return found

    def contender(self, name: str) -> Contender:
        def answer(task: TaskSection, questions: Sequence[Question]) -> list[Answer]:
            writer = writer_of(task, self.tokenizer, self.tokenizer.chat_template)
            rows = writer.rows(questions)
            told = self._ask({"do": "write", "prompts": [row.prompt for row in rows], "most": task.max_new_tokens})
            for row, written in zip(rows, told["written"], strict=True):
                row.written = written
            return writer.answers(rows, frozenset(told["ends"]), told["seconds"])

        return Contender(name, self.name, answer)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        files = {"model": str(self.file), "adapter": str(self.adapter) if self.adapter else None, "threads": THREADS}
        return ask({**files, **request})


def quantize(source: Path, target: Path, dtype: str) -> None:
    """llama.cpp's own quantizer, from a file of float32 to a type such as q4_k_m."""
    ask({"do": "quantize", "model": str(source), "to": str(target), "dtype": dtype, "threads": THREADS})


def ask(request: Mapping[str, Any]) -> dict[str, Any]:
    """One request to the worker, in a process of its own. Raises FtlibError, with its last words, where it fails."""
    command = [str(python()), "-I", str(WORKER)]  # -I: its modules alone, none of ours beside the worker
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise FtlibError(f"llama.cpp did not answer within {SECONDS:.0f} s.") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise FtlibError(f"llama.cpp cannot use {Path(str(request['model'])).name}: {said[-1].strip()}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
