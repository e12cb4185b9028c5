"""The losses that two versions are compared by, against the same numbers computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from ftlib.config import Experiment
from ftlib.errors import InputError
from ftlib.models.base import load_tokenizer
from ftlib.registry.answer_loss import loss_on, read_rows

from ..conftest import COLOURS, rows, write_jsonl


def prepared(tree: dict[str, Any], method: str, file: Path, **options: Any) -> Any:
    experiment = Experiment.parse(tree | {"method": {"type": method, **options}})
    return read_rows(file, experiment, load_tokenizer(experiment.model, experiment.method.head))


def classifier(base: Path, classes: int) -> Any:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=classes).eval()
    model.config.pad_token_id = 0
    return model


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_a_preference_is_the_difference_of_two_log_probabilities(tree, base, tmp_path, method):
    pairs = [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": "No."} for r in rows(6)]
    data = prepared(tree, method, write_jsonl(tmp_path / "pairs.jsonl", pairs))
    model, by_hand = AutoModelForCausalLM.from_pretrained(base).eval(), 0.0
    for row in data.eval:
        worth = []
        for side in ("chosen_ids", "rejected_ids"):
            ids = torch.tensor([row["prompt_ids"] + row[side]])
            with torch.no_grad():
                scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            worth.append(scores[len(row["prompt_ids"]) - 1 :].sum())
        by_hand -= float(logsigmoid(worth[0] - worth[1]))
    found = loss_on(data, model, (), "x")
    assert (found.total, found.counted, found.rows) == (pytest.approx(by_hand, rel=1e-4), 6, 6)


def test_a_reward_model_is_asked_for_its_scores(tree, base, tmp_path):
    pairs = [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": "No."} for r in rows(6)]
    data = prepared(tree, "reward", write_jsonl(tmp_path / "pairs.jsonl", pairs))
    model, by_hand = classifier(base, 1), 0.0
    for row in data.eval:
        with torch.no_grad():
            better, worse = (
                model(input_ids=torch.tensor([row["prompt_ids"] + row[side]])).logits
                for side in ("chosen_ids", "rejected_ids")
            )
        by_hand -= float(logsigmoid(better - worse))
    assert loss_on(data, model, (), "x").total == pytest.approx(by_hand, rel=1e-4)


def test_classes_are_numbered_as_the_model_knows_them(tree, base, tmp_path):
    """The file has two of eight classes, and numbers them itself."""
    some = [{"text": f"a {COLOURS[n % 2 + 3]} car", "label": COLOURS[n % 2 + 3]} for n in range(6)]
    data = prepared(tree, "classify", write_jsonl(tmp_path / "labelled.jsonl", some))
    model, by_hand = classifier(base, 8), 0.0
    for row, example in zip(data.eval, some, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
        by_hand += float(cross_entropy(logits, torch.tensor([COLOURS.index(example["label"])])))
    assert loss_on(data, model, COLOURS, "x").total == pytest.approx(by_hand, rel=1e-5)
    with pytest.raises(InputError, match="the file has the label 'black', and version 3 knows red, green"):
        loss_on(data, model, COLOURS[:3], "version 3")


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_file_for_a_method_that_rewards_is_read_with_its_answers(tree, tmp_path, method):
    some = rows(6)
    by_reward = prepared(tree, method, write_jsonl(tmp_path / "answers.jsonl", some), rewards=["exact_match"])
    by_answer = prepared(tree, "sft", tmp_path / "answers.jsonl")
    assert by_reward.eval.to_dict() == by_answer.eval.to_dict()
