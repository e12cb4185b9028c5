"""Classification: labels discovered, heads trained, scores right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftlib.config import Experiment
from ftlib.data import load_prepared
from ftlib.errors import ConfigError, DataError
from ftlib.methods.classify import Classifier
from ftlib.run.directory import Run
from tests.training.test_trial import setting, train

from ..conftest import COLOURS, write_jsonl
from ..support.encoders import make_encoder
from .conftest import labelled


@pytest.fixture
def classify(quick: dict[str, Any], labelled_file: Path) -> dict[str, Any]:
    quick["data"]["train"] = str(labelled_file)
    quick["method"] = {"type": "classify"}
    return quick


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"), [row["text"] for row in labelled(80)])


def test_a_decoder_learns_labels(classify: dict[str, Any], tmp_path: Path) -> None:
    classify["adapter"] = None
    classify["train"].update(max_steps=60, learning_rate=1e-2)
    done = setting(classify, tmp_path)
    reports = train(done)
    assert reports[-1]["eval_accuracy"] == 1.0
    assert 0.5 < reports[-1]["eval_f1_macro"] <= 1.0  # a class that has no evaluation row counts 0
    manifest = Run(Path(done.run)).trial("000").manifest
    assert manifest["labels"] == sorted(COLOURS)
    assert np.trace(manifest["confusion_matrix"]) == len(load_prepared(Path(done.data)).eval)


@pytest.mark.parametrize(
    "adapter", [None, {"type": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]}]
)
def test_an_encoder_learns_labels(classify: dict[str, Any], tmp_path: Path, encoder: Path, adapter: Any) -> None:
    classify["model"]["name_or_path"] = str(encoder)
    classify["adapter"] = adapter
    classify["train"].update(max_steps=100, learning_rate=3e-3 if adapter is None else 3e-2)
    reports = train(setting(classify, tmp_path))
    assert reports[-1]["eval_accuracy"] > 0.6  # the commonest label is a quarter of them


def test_a_frozen_encoder_trains_its_head_alone(classify: dict[str, Any], tmp_path: Path, base: Path) -> None:
    from safetensors.torch import load_file

    classify["method"]["freeze"] = "encoder"
    classify["adapter"] = None
    done = setting(classify, tmp_path)
    train(done)
    trial = Run(Path(done.run)).trial("000")
    after = load_file(trial.path / "model" / "model.safetensors")
    before = load_file(base / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before if name in after)
    assert trial.manifest["trainable_parameters"] == 8 * 32  # classes by hidden


def test_what_is_saved_classifies_alike(classify: dict[str, Any], tmp_path: Path) -> None:
    """Loaded again by PEFT alone, head and labels included."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    done = setting(classify, tmp_path)
    train(done)
    trial, data = Run(Path(done.run)).trial("000"), load_prepared(Path(done.data))
    folder = trial.weights
    model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=8).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    confusion = np.zeros((8, 8), dtype=int)
    for row in data.eval:
        with torch.no_grad():
            confusion[row["labels"], model(torch.tensor([row["input_ids"]])).logits.argmax()] += 1
    assert confusion.tolist() == trial.manifest["confusion_matrix"]


def classifier(weights: list[float] | None = None) -> Classifier:
    """One without a trainer around it."""
    bare = Classifier.__new__(Classifier)
    bare.labels, bare.label_smoothing = ("a", "b", "c"), 0.0
    bare.class_weights = None if weights is None else torch.tensor(weights)
    return bare


def test_scores() -> None:
    truth, said = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 2])
    rows = {"label": torch.tensor(truth), "predicted": torch.tensor(said), "loss": torch.zeros(6)}
    scores = classifier().summary({name: column.double() for name, column in rows.items()})
    assert scores["accuracy"] == pytest.approx(4 / 6)
    f1 = [2 * (2 / 3) * (2 / 3) / (4 / 3), 2 * 0.5 * 0.5 / 1, 1.0]
    assert scores["f1_macro"] == pytest.approx(sum(f1) / 3)


def test_accumulated_batches_weigh_their_rows_alike() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 0, 1])
    one = classifier([1.0, 2.0, 0.5])
    whole = one.loss({"logits": logits}, labels)
    parts = one.loss({"logits": logits[:2]}, labels[:2], 6) + one.loss({"logits": logits[2:]}, labels[2:], 6)
    torch.testing.assert_close(whole, parts)


def test_class_weights_balance(classify: dict[str, Any], tmp_path: Path) -> None:
    from ftlib.methods.class_weights import class_weights

    data = load_prepared(Path(setting(classify, tmp_path).data))
    classify["method"]["class_weights"] = "balanced"
    weights = class_weights(Experiment.parse(classify).method, data)
    counts = np.bincount(data.train["labels"])
    assert (weights.numpy() * counts) == pytest.approx([len(data.train) / 8] * 8)
    classify["method"]["class_weights"] = {"red": 3.0}
    named = class_weights(Experiment.parse(classify).method, data)
    assert named[data.report.labels.index("red")] / named[0] == pytest.approx(3)
    assert (named.numpy() * counts).sum() == pytest.approx(len(data.train))
    classify["method"]["class_weights"] = {"rad": 3.0}
    with pytest.raises(ConfigError, match="Did you mean 'red'"):
        class_weights(Experiment.parse(classify).method, data)


@pytest.mark.parametrize(
    ("train_labels", "eval_labels", "reason"),
    [(["a"] * 4, ["a"], "two or more"), (["a", "b"], ["c"], "the label 'c' is in no training row")],
)
def test_labels_that_cannot_be_learned(
    classify: dict[str, Any], tmp_path: Path, train_labels: list[str], eval_labels: list[str], reason: str
) -> None:
    for key, labels in (("train", train_labels), ("eval", eval_labels)):
        path = write_jsonl(tmp_path / f"{key}.jsonl", [{"text": "some text", "label": label} for label in labels])
        classify["data"][key] = str(path)
    with pytest.raises(DataError, match=reason):
        setting(classify, tmp_path)


def test_numbers_keep_their_order(classify: dict[str, Any], tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", [{"text": "t", "label": number} for number in (10, 9, 2) * 4])
    classify["data"].update(train=str(path), eval=str(path))
    report = load_prepared(Path(setting(classify, tmp_path).data)).report
    assert report.labels == ("2", "9", "10")
    assert "labels: 3 (2, 9, 10)" in report.summary()
