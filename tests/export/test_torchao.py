"""Models in fewer bits by torchao: read back by transformers, as trained but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ftlib.errors import FtlibError
from ftlib.export.formats import format_of
from ftlib.export.gate import Trained
from ftlib.export.source import Source
from ftlib.registry.gate import Candidate
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from tests.training.test_trial import setting, train

from .conftest import ran
from .faults import MODEL, Spoiled, merge_without_alpha, transpose

pytest.importorskip("torchao", reason="pip install 'ftlib[quantize]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # torchao 0.18 warns of torch 2.13's own names


@pytest.mark.parametrize(("to", "apart"), [("int8", 0.03), ("fp8", 0.08), ("int4", 0.3)])
def test_rounding_alone_is_between(to: str, apart: float, source: Source, trained: Trained, tmp_path: Path) -> None:
    format_of(to).write(source, tmp_path, None)
    found: Any = ran(to, source, tmp_path, trained)
    assert 1e-4 < found["apart"] < apart
    assert found["kept"] == pytest.approx(1, abs=0.1)
    assert found["program"].startswith("torchao 0.")
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(FtlibError, match="lost the chat template"):
        ran(to, source, tmp_path, trained)


@pytest.mark.parametrize(
    ("to", "fault", "reason"),
    [
        ("int8", transpose, "not what was trained"),
        ("int4", transpose, r"its layer model\.layers\.1\.self_attn\.q_proj is 1\.\d+ of its size apart"),
        ("fp8", transpose, "not what was trained"),
        ("int8", "alpha", r"\d\d% of the tune"),
        ("int4", "alpha", r"\d\d% of the tune"),
        ("fp8", "alpha", r"\d\d% of the tune"),
    ],
)
def test_a_planted_fault_is_told_from_rounding(
    to: str, fault: Any, reason: str, source: Source, trained: Trained, tmp_path: Path, base: Path
) -> None:
    spoil = merge_without_alpha(base) if fault == "alpha" else fault
    format_of(to).write(Spoiled(source.candidate, source.name, spoil), tmp_path, None)
    with pytest.raises(FtlibError, match=reason):
        ran(to, source, tmp_path, trained)


def test_untied_embeddings_are_refused(source: Source, trained: Trained, tmp_path: Path) -> None:
    format_of("int8").write(source, tmp_path, None)
    with safe_open(tmp_path / MODEL, framework="pt") as opened:
        told = opened.metadata()
    parts = load_file(tmp_path / MODEL)
    parts["lm_head.weight"] = parts["model.embed_tokens.weight"].clone()
    save_file(parts, tmp_path / MODEL, metadata=told)
    with pytest.raises(FtlibError, match="were tied in training, and are two matrices now"):
        ran("int8", source, tmp_path, trained)


def test_an_export_is_what_was_trained_for_its_bits(tree: dict[str, Any], tmp_path: Path) -> None:
    """With `train.qat`, rounding is a part of what was trained: nothing is left between it and the export."""
    tree["train"] |= {"qat": "int4", "max_steps": 3}
    done = setting(tree, tmp_path)
    train(done)
    folder = Run(Path(done.run)).trial("000").path
    source = Source(Candidate(Version("rounded", 1, folder), "rounded@1"), "rounded-1")
    (tmp_path / "out").mkdir()
    format_of("int4").write(source, tmp_path / "out", None)
    found: Any = ran("int4", source, tmp_path / "out", source.trained(to="int4"))
    assert found["apart"] < 1e-5
    found = ran("int4", source, tmp_path / "out", source.trained())
    assert found["apart"] > 1e-3
