"""`--to gguf`: a whole model in one GGUF file, for llama.cpp and all that is built on it.

Tensors are read and written one at a time. Types that the gguf library has no code for (k-quants) are made of a 16-bit
file by llama.cpp's own quantizer.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from ftlib.export import llama_cpp_program as llama_cpp
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Trained
from ftlib.export.gguf_family import Layout
from ftlib.export.gguf_tokenizer import Vocabulary
from ftlib.export.llama_cpp_program import LlamaCpp
from ftlib.export.source import Source, check_writes, ends_beside
from ftlib.models.adapters.merge import check_mergeable
from ftlib.models.base import load_config

# How far the logits of llama.cpp may be from the tuned model's, as a share of their size. docs/log.md has what was
# measured; a format's noise grows with the depth, and falls with the width.
LIMITS = {"f32": 3e-3, "f16": 1e-2, "bf16": 6e-2, "q8_0": 0.15, "q6_k": 0.2, "q5_k_m": 0.3, "q5_0": 0.3,
          "q4_k_m": 0.5, "q4_0": 0.6}  # fmt: skip
DTYPES = ("f16", *(name for name in LIMITS if name != "f16"))
TYPES = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}  # fmt: skip
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
              "bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}  # fmt: skip
FLOATS = np.dtype(np.float32)
PLAIN = ("f32", "f16", "bf16")


class GgufModel(Format):
    """NAME.DTYPE.gguf."""

    dtypes = DTYPES

    def check(self, source: Source, dtype: str | None) -> None:
        """Raises InputError for a model or a tokenizer that ftlib cannot write, and where there is no llama.cpp to run
        it."""
        check_writes(source, "gguf")
        if source.kind == "adapter":
            check_mergeable(source.weights)
        llama_cpp.python()
        layout_of(source)
        Vocabulary(source.candidate.tokenizer, source.owner)

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        """NAME.DTYPE.gguf in a folder."""
        merged = folder / ".merged"
        source.merged(merged, "float32")
        write_file(merged, file_in(folder, source, dtype), str(dtype), source.name)
        shutil.rmtree(merged)

    def program(self, source: Source, folder: Path) -> LlamaCpp:
        """llama.cpp, on the one GGUF file of a folder."""
        (file,) = folder.glob("*.gguf")
        return LlamaCpp(file, source.candidate.tokenizer, layout=layout_of(source))

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        return Limits(max(LIMITS[str(dtype)], trained.tolerance), rounds=dtype not in PLAIN)


FORMATS = {"gguf": GgufModel()}


def layout_of(source: Source) -> Layout:
    """Raises InputError for a family that ftlib cannot write."""
    section = source.base if source.kind == "adapter" else source.candidate.own(source.weights)
    return Layout(load_config(section), source.owner)


def write_file(merged: Path, file: Path, dtype: str, name: str) -> None:
    """The GGUF file of a model's folder, in a type of TYPES or by llama.cpp's quantizer."""
    if dtype in TYPES:
        convert(merged, file, dtype, name)
        return
    wide = file.with_name(f".{file.name}.f32")
    convert(merged, wide, "f32", name)
    llama_cpp.quantize(wide, file, dtype)
    wide.unlink()


def convert(folder: Path, file: Path, dtype: str, name: str) -> None:
    """Writes a folder of safetensors, with its tokenizer and chat template, as one GGUF file of a type of TYPES.

    Raises InputError for what llama.cpp has no place for.
    """
    layout = Layout(AutoConfig.from_pretrained(folder), name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    writer = gguf.GGUFWriter(file, layout.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    layout.write(writer)
    ends = ends_beside(str(folder), tokenizer)
    Vocabulary(tokenizer, name).write(writer, layout.config.vocab_size, tokenizer.chat_template, ends)
    _write_tensors(writer, layout, folder, dtype)
    writer.close()


def _write_tensors(writer: gguf.GGUFWriter, layout: Layout, folder: Path, dtype: str) -> None:
    """The names and places of all tensors, and then the tensors, one in memory at a time."""
    extra = dict(layout.extra())
    kinds = [_type(dtype, shape) for _, shape in shapes(folder)]
    for (theirs, shape), kind in zip(shapes(folder), kinds, strict=True):
        writer.add_tensor_info(layout.name(theirs), shape, FLOATS, _size(shape, kind), raw_dtype=kind)
    for name, tensor in extra.items():
        writer.add_tensor_info(name, [*tensor.shape], FLOATS, tensor.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for (theirs, tensor), kind in zip(parts(folder), kinds, strict=True):
        writer.write_tensor_data(gguf.quantize(layout.lay(theirs, tensor.float()).contiguous().numpy(), kind))
    for tensor in extra.values():
        writer.write_tensor_data(tensor.numpy())


def shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """The names and shapes of a model's tensors, in the order of `parts`."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in sorted(opened.keys()):
                yield name, [*opened.get_slice(name).get_shape()]


def parts(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """A model's tensors, one in memory at a time."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in sorted(opened.keys()):
                yield name, opened.get_tensor(name)


def file_in(folder: Path, source: Source, dtype: str | None) -> Path:
    """What the file of a source is called."""
    return folder / f"{source.name}.{dtype}.gguf"


def _type(dtype: str, shape: list[int]) -> gguf.GGMLQuantizationType:
    """Vectors stay float32, and a matrix whose rows are no whole blocks 16-bit, as llama.cpp has it."""
    kind = TYPES[dtype]
    if len(shape) == 1:
        return gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _size(shape: list[int], kind: gguf.GGMLQuantizationType) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(math.prod(shape) // block * size)
