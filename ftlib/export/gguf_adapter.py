"""`--to gguf-adapter`: a LoRA adapter alone, for any GGUF file of its base (`llama-server -m BASE --lora FILE`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np

from ftlib.errors import InputError
from ftlib.export import llama_cpp_program as llama_cpp
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Trained
from ftlib.export.gguf_family import Layout
from ftlib.export.gguf_model import LIMITS, convert
from ftlib.export.llama_cpp_program import LlamaCpp
from ftlib.export.source import Source, check_writes
from ftlib.files.atomic import write_text
from ftlib.files.computed_once import cached
from ftlib.models.adapter_files import why_not_banked
from ftlib.models.base import fingerprint, load_config, load_model, load_tokenizer
from ftlib.models.plain_lora import read_lora

DTYPES = ("f32", "f16")
TEMPLATE = "chat_template.jinja"  # an adapter's file has no place for it: --chat-template-file


class GgufAdapter(Format):
    """NAME.lora.gguf, and the chat template beside it."""

    dtypes = DTYPES

    def check(self, source: Source, dtype: str | None) -> None:
        """Raises InputError for what a GGUF adapter cannot hold: it has A and B of layers, and one alpha."""
        check_writes(source, "gguf-adapter")
        if source.kind != "adapter":
            raise InputError(f"{source.owner} is a whole model: use --to gguf.")
        if (why := why_not_banked(source.owner, source.weights)) is not None:
            raise InputError(f"{source.owner} cannot be a GGUF adapter: {why}. Use --to gguf.")
        llama_cpp.python()
        layout = Layout(load_config(source.base), source.owner)
        for layer in read_lora(source.owner, source.weights).ranks:
            if layer == "lm_head" and layout.config.tie_word_embeddings:
                raise InputError(
                    f"{source.owner} trains lm_head, which llama.cpp has no place for: its embeddings are tied."
                )
            layout.name(f"{layer}.weight")

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        """Each layer's scale is in its B: the file's alpha is the rank, which is a scale of 1."""
        layout, lora = (
            Layout(load_config(source.base), source.owner),
            read_lora(source.owner, source.weights).of_one_rank(),
        )
        writer = gguf.GGUFWriter(folder / f"{source.name}.lora.gguf", layout.architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(source.name)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(lora.rank))
        kind = np.float16 if dtype == "f16" else np.float32
        for layer in sorted(lora.ranks):
            weight = f"{layer}.weight"
            down, up = lora.state[f"{layer}.lora_A.weight"], lora.state[f"{layer}.lora_B.weight"]
            writer.add_tensor(f"{layout.name(weight)}.lora_a", down.float().numpy().astype(kind))
            rows = layout.lay(weight, up.float()).contiguous()
            writer.add_tensor(f"{layout.name(weight)}.lora_b", rows.numpy().astype(kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if source.template is not None:
            write_text(folder / TEMPLATE, source.template)

    def program(self, source: Source, folder: Path) -> LlamaCpp:
        """llama.cpp, with the adapter on its base in float32."""
        (file,) = folder.glob("*.lora.gguf")
        return LlamaCpp(base_file(source), source.candidate.tokenizer, file, folder / TEMPLATE)

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        return Limits(max(LIMITS["f32"], trained.tolerance))


FORMATS = {"gguf-adapter": GgufAdapter()}


def base_file(source: Source) -> Path:
    """The base as a GGUF file, made once, by content."""
    place = Path(source.base_name)
    known = fingerprint(place) if place.exists() else f"{source.base_name}@{source.base.revision}"
    return cached("gguf_bases", {"version": 1, "base": known}, lambda folder: _base(source, folder)) / "base.gguf"


def _base(source: Source, folder: Path) -> None:
    plain = folder / "plain"
    load_model(source.base.model_copy(update={"dtype": "float32"})).save_pretrained(plain)
    load_tokenizer(source.base).save_pretrained(plain)
    convert(plain, folder / "base.gguf", "f32", "base")
    shutil.rmtree(plain)
