"""The formats, in one table: what writes each, what runs it, and how far rounding may move its logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ftlib.errors import InputError, nearest
from ftlib.export.gate import Limits, Trained
from ftlib.export.program import Program
from ftlib.export.source import Source

MODULES = {
    "merged": "merged",
    "peft": "peft_folder",
    "vllm": "vllm_folder",
    "gguf": "gguf_model",
    "gguf-adapter": "gguf_adapter",
    "ollama": "ollama",
    "int8": "torchao_model",
    "int4": "torchao_model",
    "fp8": "torchao_model",
    "onnx": "onnx_encoder",
}
ADAPTERS = ("peft", "vllm", "gguf-adapter")  # the others hold a whole model
USES = {
    "merged": "transformers, vLLM, SGLang and TGI load this folder",
    "peft": "PEFT loads this folder, on the base that it names",
    "vllm": "vllm serve BASE --enable-lora --lora-modules NAME=FOLDER",
    "gguf": "llama-server -m FILE.gguf",
    "gguf-adapter": "llama-server -m BASE.gguf --lora FILE.lora.gguf --chat-template-file chat_template.jinja",
    "ollama": "ollama create NAME -f Modelfile",
    "int8": "transformers loads this folder, where torchao is installed",
    "int4": "transformers loads this folder, where torchao is installed",
    "fp8": "transformers loads this folder, where torchao is installed",
    "onnx": "onnxruntime runs model.onnx",
}
ELSEWHERE = {
    "gptq": "llm-compressor",
    "awq": "llm-compressor",
}


class Format(ABC):
    """One format. `dtypes` are those that --dtype may name, the default first; a format with none has no choice."""

    dtypes: Sequence[str | None] = ()

    @abstractmethod
    def check(self, source: Source, dtype: str | None) -> None:
        """Raises InputError, before any work, for a source that the format cannot hold, and for a program that is not
        here."""

    @abstractmethod
    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        """Fills a folder that is there and empty."""

    @abstractmethod
    def program(self, source: Source, folder: Path) -> Program:
        """The program that will run it, with the artifact loaded. Raises FtlibError for one that cannot be."""

    @abstractmethod
    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        """How far rounding alone may move its logits."""


def format_of(name: str) -> Format:
    """Raises InputError, with the nearest name, for a format that there is not."""
    if name in ELSEWHERE:
        raise InputError(
            f"--to {name} is made by {ELSEWHERE[name]}, which does not go beside ftlib (docs/exporting.md): "
            "export it --to merged, and quantize that there."
        )
    if name == "hub":
        raise InputError("--to hub: 'ftlib push NAME OWNER/NAME' exports a winner, and brings it there.")
    if name not in MODULES:
        raise InputError(f"--to {name}: there is {', '.join(MODULES)}.{nearest(name, MODULES)}")
    found: Format = import_module(f"ftlib.export.{MODULES[name]}").FORMATS[name]
    return found


def check_dtype(to: str, format: Format, dtype: str | None) -> str | None:
    """The dtype that is meant. Raises InputError for one that the format does not have."""
    if dtype is None:
        return format.dtypes[0] if format.dtypes else None
    known = [name for name in format.dtypes if name is not None]
    if dtype not in known:
        there = f"it has {', '.join(known)}" if known else "it has none to choose"
        raise InputError(f"--dtype {dtype}: --to {to} cannot; {there}.{nearest(dtype, known)}")
    return dtype
