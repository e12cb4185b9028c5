"""GGUF files in llama.cpp: logits, tokens and ends as trained; each planted fault is refused. And without llama.cpp:
what the files hold, read back by transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ftlib.errors import FtlibError, InputError
from ftlib.export.formats import format_of
from ftlib.export.gate import Trained
from ftlib.export.gguf_family import Layout, llama3_factors, paired
from ftlib.export.gguf_model import convert
from ftlib.export.gguf_tokenizer import cutting, scores
from ftlib.export.source import Source
from ftlib.registry.agreement import logits_of

from .conftest import Written, ran
from .faults import Spoiled, merge_without_alpha, transpose

LAYER = "blk.1.attn_q.weight"


@pytest.fixture(scope="module")
def merged(written: Written) -> Path:
    return written("merged", "float32")


def test_transformers_reads_the_file_as_the_model(trained: Trained, merged: Path, tmp_path: Path) -> None:
    convert(merged, tmp_path / "it.gguf", "f32", "it")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="it.gguf").eval()
    for ours, wanted in zip(logits_of(model, trained.probes), trained.tuned, strict=True):
        assert torch.allclose(ours, wanted, atol=1e-4)


@pytest.mark.usefixtures("needs_llama_cpp")
@pytest.mark.parametrize(
    ("to", "dtype"), [("gguf", "f32"), ("gguf", "q8_0"), ("gguf", "q4_k_m"), ("gguf-adapter", None), ("ollama", "f16")]
)
def test_llama_cpp_computes_what_was_trained(
    to: str, dtype: str | None, source: Source, trained: Trained, written: Written
) -> None:
    found = ran(to, source, written(to, dtype), trained, dtype)
    assert found["kept"] == pytest.approx(1, abs=0.1)
    assert str(found["program"]).startswith("llama.cpp (llama-cpp-python 0.")


def rewritten(folder: Path, tensors: Callable[[str, Any], Any], leave_out: str = "") -> None:
    """Another GGUF file in the place of the one in a folder: the same fields but one, other tensors."""
    (file,) = folder.glob("*.gguf")
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(folder / "new", reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", leave_out):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        value = field.contents() * (0.25 if leave_out == "alpha" and name.endswith("lora.alpha") else 1)
        writer.add_key_value(name, value, field.types[0], inner)
    for tensor in reader.tensors:
        for name, data in tensors(tensor.name, np.array(tensor.data)):
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "new").replace(file)


def same(name: str, data: Any) -> list[Any]:
    return [(name, data)]


def transposed(name: str, data: Any) -> list[Any]:
    return [(name, np.ascontiguousarray(data.T) if name == LAYER else data)]


def unpaired(name: str, data: Any) -> list[Any]:
    """Queries and keys in transformers' order."""
    if "attn_q" not in name and "attn_k" not in name:
        return [(name, data)]
    heads = 4 if "attn_q" in name else 2
    return [(name, data.reshape(heads, len(data) // heads // 2, 2, -1).swapaxes(1, 2).reshape(data.shape))]


def swapped(name: str, data: Any) -> list[Any]:
    """A and B of a square layer in each other's place."""
    if not name.startswith(LAYER):
        return [(name, data)]
    other = {"lora_a": "lora_b", "lora_b": "lora_a"}[name.rpartition(".")[2]]
    return [(f"{LAYER}.{other}", np.ascontiguousarray(data.T))]


def untied(name: str, data: Any) -> list[Any]:
    return [(name, data), ("output.weight", data)] if name == "token_embd.weight" else [(name, data)]


@pytest.mark.usefixtures("needs_llama_cpp")
@pytest.mark.parametrize(
    ("to", "fault", "reason"),
    [
        ("gguf", lambda folder: rewritten(folder, transposed), "not what was trained"),
        ("gguf", lambda folder: rewritten(folder, unpaired), "not what was trained"),
        ("gguf", lambda folder: rewritten(folder, untied), "were tied in training, and are two matrices now"),
        ("gguf", lambda folder: rewritten(folder, same, "tokenizer.chat_template"), "lost the chat template"),
        ("gguf-adapter", lambda folder: rewritten(folder, same, "alpha"), r"\d\d% of the tune"),
        ("gguf-adapter", lambda folder: (folder / "chat_template.jinja").unlink(), "lost the chat template"),
        ("ollama", lambda folder: (folder / "Modelfile").write_text("FROM ./colours-1.f32.gguf\n"),
         "its Modelfile has lost the chat template, the stop token"),
        ("gguf-adapter", lambda folder: rewritten(folder, swapped), "not what was trained"),
        ("ollama", lambda folder: rewritten(folder, untied), "were tied in training, and are two matrices now"),
    ],
)  # fmt: skip
def test_each_planted_fault_is_refused(
    to: str, fault: Callable[[Path], Any], reason: str, source: Source, trained: Trained, written: Written
) -> None:
    dtype = None if to == "gguf-adapter" else "f32"
    folder = written(to, dtype)
    fault(folder)
    with pytest.raises(FtlibError, match=reason):
        ran(to, source, folder, trained, dtype)


@pytest.mark.usefixtures("needs_llama_cpp")
@pytest.mark.parametrize("to", ["gguf", "ollama"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (transpose, r"its layer model\.layers\.1\.self_attn\.q_proj is 1\.\d+ of its size"),
        ("alpha", r"\d\d% of the tune"),
    ],
)
def test_a_planted_fault_is_told_from_rounding_to_four_bits(
    to: str, fault: Any, reason: str, source: Source, trained: Trained, base: Path, tmp_path: Path
) -> None:
    spoil = merge_without_alpha(base) if fault == "alpha" else fault
    format_of(to).write(Spoiled(source.candidate, source.name, spoil), tmp_path, "q4_k_m")
    with pytest.raises(FtlibError, match=reason):
        ran(to, source, tmp_path, trained, "q4_k_m")


@pytest.mark.usefixtures("needs_llama_cpp")
def test_a_file_that_is_none_is_said_in_a_sentence(source: Source, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "it.f32.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(FtlibError, match=r"llama\.cpp cannot use it\.f32\.gguf: "):
        ran("gguf", source, tmp_path, trained, "f32")


def test_llama_3s_factors_are_those_of_transformers() -> None:
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}  # fmt: skip
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=131072, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / (5e5 ** (torch.arange(0, 64, 2) / 64))
    assert torch.allclose(plain / llama3_factors(rope, 64), scaled, rtol=1e-5)


def test_halves_of_a_rotation_become_neighbours() -> None:
    assert paired(torch.arange(8)[:, None], 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_scores_follow_the_merges() -> None:
    assert scores(["a", "ab", "abc"], ["a b", "ab c", "a bc"]) == [-10000.0, 0.0, -1.0]


def test_ways_to_cut_text_have_names_or_are_refused() -> None:
    plain, digits = {"type": "ByteLevel", "use_regex": True}, {"type": "Digits", "individual_digits": True}
    assert cutting(plain, "it") == "gpt-2"
    assert cutting({"type": "Sequence", "pretokenizers": [digits, plain]}, "it") == "smollm"
    start, rest = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|", r"\s*[\r\n]+|\s+(?!\S)|\s+"
    qwen = start + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + rest
    split = {"type": "Split", "pattern": {"Regex": qwen}}
    assert cutting({"pretokenizers": [split, plain | {"use_regex": False}]}, "it") == "qwen2"
    with pytest.raises(InputError, match=r"by rules \(Split, ByteLevel\) that ftlib knows no name of"):
        cutting({"pretokenizers": [{"type": "Split", "pattern": {"Regex": "."}}, plain | {"use_regex": False}]}, "it")


def test_families_and_ropes_that_are_not_known_are_refused() -> None:
    from transformers import GPT2Config

    with pytest.raises(InputError, match="a model of type gpt2, and ftlib writes GGUF files of llama, mistral"):
        Layout(GPT2Config(), "it")
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(InputError, match="no rope of type dynamic"):
        Layout(LlamaConfig(rope_parameters=rope), "it")
