"""Encoders in packs: the forward is the model's own, a trial is transformers' trainer's, and its bits its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, BertModel

from ftlib.data import load_prepared
from ftlib.files.json_files import read_json
from ftlib.methods.pack_losses import objective
from ftlib.pack.frozen_base import CannotPack, FrozenBase
from ftlib.pack.token_layout import Block
from tests.training.test_trial import setting

from ..conftest import ROOT, write_jsonl
from ..methods.conftest import labelled
from ..support.encoders import SHAPES, make_encoder
from .conftest import assert_same_bits, left_behind, losses, pack_of, train, trial
from .test_truth import both

MINILM = ROOT / ".cache" / "models" / "minilm-l6-v2"
ROWS = labelled(80)
NO_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
}
POINTS: list[dict[str, Any]] = [
    {"adapter.r": 8, "train.learning_rate": 3e-3, "train.weight_decay": 0.3},
    {"adapter.r": 2, "train.learning_rate": 1e-2, "train.per_device_train_batch_size": 5},
    {"adapter.r": 4, "train.gradient_accumulation_steps": 3, "train.max_grad_norm": 0.05},
]


@pytest.fixture
def tree(tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    tree["data"]["train"] = str(write_jsonl(tmp_path / "rows.jsonl", ROWS))
    tree["method"] = {"type": "classify", "label_smoothing": 0.1}
    tree["train"].update(max_steps=6, logging_steps=1, eval_strategy="steps", eval_steps=3)
    return with_base(tree, tmp_path, "bert")


def with_base(tree: dict[str, Any], folder: Path, kind: str, dropout: bool = False) -> dict[str, Any]:
    tree["model"] = {"name_or_path": str(make_encoder(folder / kind, [row["text"] for row in ROWS], kind))}
    if not dropout:
        tree["model"]["config"] = NO_DROPOUT.get(kind, NO_DROPOUT["bert"])
    return tree


@pytest.mark.parametrize("kind", SHAPES)
@torch.no_grad()
def test_the_forward_is_the_models_own(kind: str, tree: dict[str, Any], tmp_path: Path) -> None:
    tree["adapter"]["target_modules"] = ".*(query|q_lin)"
    done = setting(with_base(tree, tmp_path, kind), tmp_path)
    data = load_prepared(Path(done.data))
    ours = FrozenBase(done.experiment(), data, 2, 4)
    torch.manual_seed(done.experiment().train.seed)
    labels = len(data.report.labels)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / kind, num_labels=labels).eval()
    found = objective(done.experiment(), data, ours)
    parts = [found.tokens("train", rows) for rows in ([0, 3, 5, 7], [1, 2])]
    with ours.computing([Block.of(tokens) for tokens in parts], None) as outputs:
        for scored, sequences in zip(outputs, parts, strict=True):
            expected = [theirs(input_ids=torch.from_numpy(tokens.ids)[None]).logits[0] for tokens in sequences]
            assert torch.allclose(scored.logits, torch.stack(expected), atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("bert", "all-linear"),
        ("roberta", ["query", "value"]),
        pytest.param("distilbert", ["q_lin", "v_lin"], marks=pytest.mark.matrix),
        pytest.param("electra", ["key"], marks=pytest.mark.matrix),
    ],
)
def test_a_trial_of_a_pack_is_the_trial_alone(kind: str, targets: Any, tree: dict[str, Any], tmp_path: Path) -> None:
    tree = with_base(tree, tmp_path, kind)
    tree["adapter"]["target_modules"] = targets
    for alone, packed in both(tree, tmp_path, POINTS, shares=False):
        for key in ("loss", "eval_loss", "eval_accuracy"):
            assert losses(packed, key) == pytest.approx(losses(alone, key), rel=1e-4)
        ours, theirs = (load_file(found.weights / "adapter_model.safetensors") for found in (packed, alone))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert torch.allclose(tensor, theirs[name], atol=1e-3), name
        assert packed.manifest["trainable_parameters"] == alone.manifest["trainable_parameters"]


@pytest.mark.real
@pytest.mark.skipif(not MINILM.exists(), reason="'make install' could not fetch the model's wheel from PyPI")
def test_minilm_is_the_trial_alone(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["model"] = {"name_or_path": str(MINILM), "config": NO_DROPOUT["bert"]}
    tree["train"].update(max_steps=3, eval_steps=3)
    for alone, packed in both(tree, tmp_path, [{"train.learning_rate": 3e-3}, {"adapter.r": 8}], shares=False):
        for key in ("loss", "eval_loss"):
            assert losses(packed, key) == pytest.approx(losses(alone, key), rel=1e-4)


def test_what_a_pack_saves_peft_loads(tree: dict[str, Any], tmp_path: Path) -> None:
    made = setting(with_base(tree, tmp_path, "bert"), tmp_path)
    train(pack_of(made), {"000": POINTS[0], "001": POINTS[1]})
    folder, data = trial(made, "000").weights, load_prepared(Path(made.data))
    model = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=8).eval()
    with torch.no_grad():
        said = [int(model(torch.tensor([row["input_ids"]])).logits.argmax()) for row in data.eval]
    right = sum(label == row["labels"] for label, row in zip(said, data.eval, strict=True))
    assert losses(trial(made, "000"), "eval_accuracy")[-1] == pytest.approx(right / len(data.eval))
    assert read_json(folder / "adapter_config.json")["modules_to_save"] == ["classifier"]


@pytest.mark.parametrize(("width", "threads"), [(8, 1), pytest.param(2, 2, marks=pytest.mark.matrix)])
def test_neighbours_change_no_bit_of_what_the_base_drops(
    width: int, threads: int, tree: dict[str, Any], tmp_path: Path
) -> None:
    """BERT's own dropout, of hidden states and of attention, is each trial's."""
    made = setting(with_base(tree, tmp_path, "bert", dropout=True), tmp_path)
    watched = {**POINTS[0], "adapter.lora_dropout": 0.2}
    others = {"n0": POINTS[1], "n1": {**POINTS[2], "train.seed": 7}, "n2": {"adapter.r": 6, "train.seed": 9}}
    try:
        assert train(pack_of(made, width=width, threads=threads), {"n": watched, "watched": watched, **others}) == {}
        assert train(pack_of(made, slots=1, threads=threads), {"alone": watched}) == {}
    finally:
        torch.set_num_threads(1)
    assert_same_bits(left_behind(trial(made, "alone")), left_behind(trial(made, "watched")))


def test_a_base_drops_what_it_says(tree: dict[str, Any], tmp_path: Path) -> None:
    """The mean of many passes with dropout has the loss of none; one of them has not."""
    made = setting(with_base(tree, tmp_path, "bert", dropout=True), tmp_path)
    pack = pack_of(made, slots=1)
    pack.join("000", {}, lambda row: None)
    member = pack.members["000"]
    block = member.block()
    from ftlib.models.bank_routes import Dropout, Route

    def loss(seed: int, *drops: bool) -> float:
        route = Route([0], [Dropout(0.0, (seed,), len(block.ids))] if drops else [])
        with torch.no_grad(), pack.base.computing([block], route) as (scored,):
            return float(member.part(scored))

    plain, many = loss(0), [loss(seed, True) for seed in range(60)]
    assert loss(3, True) == many[3] != plain
    assert sum(many) / len(many) == pytest.approx(plain, rel=0.05)


def test_layers_that_each_seed_draws_are_no_common_base(tree: dict[str, Any], tmp_path: Path) -> None:
    BertModel.from_pretrained(tmp_path / "bert", add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    tree["sweep"] = {"space": {"train.seed": [1, 2]}, "search": {"type": "grid"}}
    done = setting(tree, tmp_path)
    with pytest.raises(CannotPack, match=r"lack bert.pooler.dense, which each train\.seed"):
        FrozenBase(done.experiment(), load_prepared(Path(done.data)), 1, 4)
