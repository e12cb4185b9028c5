"""An encoder that sorts texts, in onnxruntime: as trained, and each planted fault is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ftlib.errors import FtlibError, InputError
from ftlib.export.formats import format_of
from ftlib.export.source import Source
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.models.adapters import merge
from ftlib.registry.gate import Candidate
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from tests.methods.conftest import labelled
from tests.support.encoders import make_encoder
from tests.training.test_trial import setting, train

from ..conftest import write_jsonl
from .conftest import ran

pytest.importorskip("onnxscript", reason="pip install 'ftlib[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'ftlib[onnx]'")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("classifier")
    rows = labelled(80)
    tree = {
        "name": "sorts",
        "model": {"name_or_path": str(make_encoder(folder / "base", [row["text"] for row in rows]))},
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows)), "max_length": 16, "eval_split": 0.2},
        "method": {"type": "classify"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 12},
        "train": {"learning_rate": 1e-2, "max_steps": 10, "per_device_train_batch_size": 8},
    }
    done = setting(tree, folder)
    train(done)
    trial = Run(Path(done.run)).trial("000").path
    return Source(Candidate(Version("sorts", 1, trial), "sorts@1"), "sorts-1")


def test_onnxruntime_computes_what_was_trained_and_no_fault(
    classifier: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = classifier.trained()
    format_of("onnx").write(classifier, tmp_path, None)
    found: Any = ran("onnx", classifier, tmp_path, trained)
    assert found["apart"] < 1e-4 < found["effect"]
    assert found["program"].startswith("onnxruntime ")
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", config | {"id2label": {n: f"LABEL_{n}" for n in config["id2label"]}})
    with pytest.raises(FtlibError, match=r"its classes are \['LABEL_0'"):
        ran("onnx", classifier, tmp_path, trained)

    def load_wrongly(*given: Any) -> Any:
        model = load_model(*given)
        layer = next(part for part in model.modules() if isinstance(part, torch.nn.Linear))
        layer.weight.data = layer.weight.data.T.contiguous()
        return model

    load_model = merge.load_model
    monkeypatch.setattr(merge, "load_model", load_wrongly)
    (tmp_path / "wrong").mkdir()
    format_of("onnx").write(classifier, tmp_path / "wrong", None)
    with pytest.raises(FtlibError, match="not what was trained"):
        ran("onnx", classifier, tmp_path / "wrong", trained)


def test_a_classifier_goes_into_no_format_of_models_that_write(classifier: Source) -> None:
    for to in ("gguf", "vllm", "ollama", "gguf-adapter"):
        with pytest.raises(InputError, match="sorts texts"):
            format_of(to).check(classifier, None)
