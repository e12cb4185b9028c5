"""Folders for transformers, PEFT and vLLM: what was trained passes its gate, and each planted fault is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

from ftlib.errors import FtlibError, InputError
from ftlib.export.export import export
from ftlib.export.formats import format_of
from ftlib.export.gate import Trained
from ftlib.export.source import Source
from ftlib.export.vllm_folder import check_rules
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.models.base import bare_model
from ftlib.registry.agreement import logits_of

from .conftest import Written, ran
from .faults import (
    ADAPTER,
    MERGED_LAYER,
    MODEL,
    change,
    lose_alpha,
    lose_template,
    lose_tune,
    merge_without_alpha,
    scale_without_alpha,
    transpose,
    transpose_pair,
    untie,
)


@pytest.mark.parametrize("to", ["merged", "peft", "vllm"])
def test_what_was_trained_passes(to: str, source: Source, trained: Trained, written: Written) -> None:
    found = ran(to, source, written(to), trained)
    assert found["apart"] < 1e-5 < 1e-2 < found["effect"]  # type: ignore[operator]
    assert (found["kept"], found["tokens"]) == (pytest.approx(1, abs=1e-3), 1)


@pytest.mark.parametrize(("dtype", "apart"), [("bfloat16", 3e-2), ("float16", 5e-3)])
def test_a_dtype_is_written_and_rounds_as_it_must(
    dtype: str, apart: float, source: Source, trained: Trained, written: Written
) -> None:
    folder = written("merged", dtype)
    assert {part.dtype for part in load_file(folder / MODEL).values()} == {getattr(torch, dtype)}
    assert 1e-5 < ran("merged", source, folder, trained, dtype)["apart"] < apart  # type: ignore[operator]


def test_tied_stays_tied(written: Written) -> None:
    folder = written("merged")
    assert "lm_head.weight" not in load_file(folder / MODEL)
    assert read_json(folder / "config.json")["tie_word_embeddings"] is True


def test_others_load_what_peft_gets(source: Source, trained: Trained, written: Written) -> None:
    """By the folder alone: it names its base."""
    model = AutoPeftModelForCausalLM.from_pretrained(written("peft")).eval()
    assert torch.allclose(logits_of(model, trained.probes)[0], trained.tuned[0], atol=1e-5)


def test_vllm_gets_one_rank_and_one_scale(source: Source, trained: Trained, written: Written, tmp_path: Path) -> None:
    """vLLM reads no pattern: alpha 12 over rank 4 in one layer and 2 in another become the same number."""
    folder = written("vllm")
    config = read_json(folder / "adapter_config.json")
    assert (config["r"], config["lora_alpha"], config["alpha_pattern"]) == (4, 4, {})
    layers = dict(bare_model(source.base).named_modules())
    check_rules(folder, layers, "it")
    for key, value in {"alpha_pattern": {"q_proj": 3}, "modules_to_save": ["lm_head"], "r": 1024}.items():
        write_json(folder / "adapter_config.json", config | {key: value})
        with pytest.raises(FtlibError, match="vLLM"):
            check_rules(folder, layers, "it")
    write_json(folder / "adapter_config.json", config)
    change(
        folder, ADAPTER, lambda parts: parts.update({"base_model.model.model.norm.lora_A.weight": torch.ones(4, 32)})
    )
    with pytest.raises(FtlibError, match=r"model\.norm is no linear layer"):
        check_rules(folder, layers, "it")


@pytest.mark.parametrize(
    ("to", "fault", "reason"),
    [
        ("merged", lambda folder: change(folder, MODEL, transpose), "not what was trained"),
        ("merged", lambda folder: change(folder, MODEL, untie), "were tied in training, and are two matrices now"),
        ("merged", lambda folder: change(folder, MODEL, lambda parts: parts.pop(MERGED_LAYER)), "lacks 1 weights"),
        ("merged", lose_template, "lost the chat template"),
        ("peft", lambda folder: change(folder, ADAPTER, transpose_pair), "not what was trained"),
        ("peft", lose_alpha, r"not what was trained: .*\d\d% of the tune is kept"),
        ("peft", lose_tune, "0% of the tune is kept"),
        ("peft", lose_template, "lost the chat template"),
        ("vllm", lambda folder: change(folder, ADAPTER, transpose_pair), "not what was trained"),
        ("vllm", lose_tune, "0% of the tune is kept"),
        ("vllm", lambda folder: change(folder, ADAPTER, scale_without_alpha), r"\d\d% of the tune is kept"),
        ("vllm", lose_template, "lost the chat template"),
    ],
)
def test_each_planted_fault_is_refused(
    to: str, fault: Callable[[Path], None], reason: str, source: Source, trained: Trained, written: Written
) -> None:
    folder = written(to)
    fault(folder)
    with pytest.raises(FtlibError, match=reason):
        ran(to, source, folder, trained)


def test_a_merge_that_forgets_alpha_is_refused(source: Source, trained: Trained, written: Written, base: Path) -> None:
    folder = written("merged")
    change(folder, MODEL, merge_without_alpha(base))
    with pytest.raises(FtlibError, match=r"\d\d% of the tune is kept"):
        ran("merged", source, folder, trained)


def test_a_refused_export_leaves_nothing(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peft = format_of("peft")
    write = type(peft).write

    def write_wrongly(self: Any, source: Source, folder: Path, dtype: str | None) -> None:
        write(self, source, folder, dtype)
        lose_alpha(folder)

    monkeypatch.setattr(type(peft), "write", write_wrongly)
    with pytest.raises(FtlibError, match="not what was trained"):
        export(source, "peft", tmp_path / "out", None, print)
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_is_refused_by_name(source: Source, tmp_path: Path) -> None:
    for to, dtype, reason in (
        ("gguff", None, "Did you mean 'gguf'"),
        ("merged", "int3", "--dtype int3: --to merged cannot; it has float32, bfloat16, float16"),
        ("peft", "float16", "it has none to choose"),
        ("onnx", None, "for models that sort texts"),
        ("awq", None, "llm-compressor"),
        ("hub", None, "ftlib push"),
    ):
        with pytest.raises(InputError, match=reason):
            export(source, to, tmp_path / "out", dtype, print)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="is there already"):
        export(source, "merged", tmp_path / "out", None, print)
