"""Models in fewer bits by torchao: read back by transformers, as trained but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
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


def test_a_transposed_matrix_is_refused(source: Source, trained: Trained, tmp_path: Path) -> None:
    from safetensors import safe_open

    format_of("int8").write(source, tmp_path, None)
    file = tmp_path / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        told = opened.metadata()
    parts = load_file(file)
    name = "model.layers.0.self_attn.o_proj._weight_qdata"
    parts[name] = parts[name].T.contiguous()
    save_file(parts, file, metadata=told)
    with pytest.raises(FtlibError, match="not what was trained"):
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
