"""An encoder that sorts texts, in onnxruntime: as trained, and each planted fault is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ftlib.errors import FtlibError, InputError
from ftlib.export.formats import format_of
from ftlib.export.gate import Trained
from ftlib.export.source import Source
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.registry.gate import Candidate
from ftlib.registry.version import Version
from ftlib.run.directory import Run
from tests.methods.conftest import labelled
from tests.support.encoders import make_encoder
from tests.training.test_trial import setting, train

from ..conftest import write_jsonl
from .conftest import ran

onnx = pytest.importorskip("onnx", reason="pip install 'ftlib[onnx]'")
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


@pytest.fixture(scope="module")
def trained(classifier: Source) -> Trained:
    return classifier.trained()


@pytest.fixture(scope="module")
def graph(classifier: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an export: torch takes seconds for one."""
    folder = tmp_path_factory.mktemp("graph")
    format_of("onnx").write(classifier, folder, None)
    return folder


def test_onnxruntime_computes_what_was_trained(classifier: Source, trained: Trained, graph: Path) -> None:
    found: Any = ran("onnx", classifier, graph, trained)
    assert found["apart"] < 1e-4 < found["effect"]
    assert found["program"].startswith("onnxruntime ")


Weights = dict[str, torch.Tensor]


def transpose(before: Weights, merged: Weights) -> Weights:
    name = next(name for name in merged if name.endswith("query.weight"))
    return {name: merged[name].T}


def forget_alpha(before: Weights, merged: Weights) -> Weights:
    """A third of what was added: alpha over rank is 3."""
    inner = {name: name.partition(".")[2] for name in merged}
    return {name: before[base] + (merged[name] - before[base]) / 3 for name, base in inner.items() if base in before}


def lose_tune(before: Weights, merged: Weights) -> Weights:
    return {name: part * 0 if name.startswith("classifier") else part for name, part in merged.items()}


@pytest.mark.parametrize("fault", [transpose, forget_alpha, lose_tune])
def test_each_planted_fault_is_refused(
    fault: Any, classifier: Source, trained: Trained, graph: Path, tmp_path: Path
) -> None:
    """In the graph, where a layer's matrix is stored as it is multiplied: transposed."""
    classifier.merged(tmp_path / "merged", "float32")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    spoiled = fault(load_file(Path(classifier.base_name) / "model.safetensors"), merged)
    model = onnx.load(graph / "model.onnx")
    swaps = {merged[name].numpy().T.tobytes(): part.numpy().T for name, part in spoiled.items()}
    found = [(part, swaps.get(onnx.numpy_helper.to_array(part).tobytes())) for part in model.graph.initializer]
    assert any(data is not None for _, data in found)
    for part, data in found:
        if data is not None:
            part.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(data), part.name))
    shutil.copytree(graph, tmp_path / "it")
    onnx.save(model, tmp_path / "it" / "model.onnx")
    with pytest.raises(FtlibError, match=r"not what was trained: .*\d% of the tune is kept"):
        ran("onnx", classifier, tmp_path / "it", trained)


def test_other_classes_are_refused(classifier: Source, trained: Trained, graph: Path, tmp_path: Path) -> None:
    shutil.copytree(graph, tmp_path, dirs_exist_ok=True)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", config | {"id2label": {n: f"LABEL_{n}" for n in config["id2label"]}})
    with pytest.raises(FtlibError, match=r"its classes are \['LABEL_0'"):
        ran("onnx", classifier, tmp_path, trained)


def test_a_classifier_goes_into_no_format_of_models_that_write(classifier: Source) -> None:
    for to in ("gguf", "vllm", "ollama", "gguf-adapter"):
        with pytest.raises(InputError, match="sorts texts"):
            format_of(to).check(classifier, None)
