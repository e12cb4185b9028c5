"""What a classifier is worth: the real driver, on a tiny base that writes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig

from ftlib.config import Experiment
from ftlib.data.cache import kept
from ftlib.driver.classifier import _writes
from ftlib.driver.promote import promote
from ftlib.driver.task_gate import Conditions
from ftlib.errors import ConfigError, FtlibError, InputError
from ftlib.files.home import home
from ftlib.files.json_files import read_json
from ftlib.registry import registry
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard
from tests.conftest import ftlib, only_run, write_experiment, write_jsonl
from tests.methods.conftest import labelled


@pytest.fixture(scope="module")
def tree(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("labels")
    return {
        "name": "colours",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(write_jsonl(folder / "train.jsonl", labelled(80))), "eval_split": 0.25},
        "method": {"type": "classify"},
        "adapter": {"type": "lora", "r": 8},
        "train": {"max_steps": 24, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "eval_strategy": "end"},
        "sweep": {"space": {"train.learning_rate": [1e-4, 1e-2]}, "search": {"type": "grid"}, "pack": 2,
                  "metric": "eval_accuracy"},
        "track": {"wandb": None, "tensorboard": False},
        "storage": str(folder / "runs"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def swept(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> tuple[Run, str]:
    status, output = ftlib("sweep", write_experiment(tmp_path_factory.mktemp("sweep") / "x.yaml", tree))
    assert status == 0, output
    return only_run(Path(tree["storage"])), output


def test_the_baselines_of_a_classifier_are_the_majority_and_the_base(swept: tuple[Run, str], base: Path) -> None:
    run, output = swept
    found = read_json(run.path / "evaluation.json")
    (task,) = found["tasks"].values()
    value = {who: told["numbers"]["accuracy"]["value"] for who, told in task["contenders"].items()}
    board = leaderboard(run)
    assert board.base is None  # a random head is no baseline
    assert board.best is not None
    assert value["winner"] == pytest.approx(board.best.value)
    data = kept(home() / "cache" / "data", run.resolved["data"]["hash"])
    assert data is not None
    assert value["majority"] == max(Counter(data.eval["labels"]).values()) / len(data.eval)
    assert value["base"] == _of_transformers(base, data.eval, data.report.labels, task)
    assert f"labels: {100 * value['winner']:.1f} % (" in output
    assert f"on {len(data.eval)} rows that also chose the trial" in output
    rows = [json.loads(line) for line in (run.path / "answers.jsonl").read_text().splitlines()]
    sent = next(row["sent"] for row in rows if row["contender"] == "base")
    assert "Answer with the label alone: " in sent[0]["content"]


def _of_transformers(base: Path, rows: Any, labels: tuple[str, ...], task: dict[str, Any]) -> float:
    """How often the right label is the base's likeliest answer, in lines of one's own."""
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    told = f"Which label fits the text? Answer with the label alone: {', '.join(labels)}."
    right = 0
    for ids, label in zip(rows["input_ids"], rows["labels"], strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        chat = [{"role": "system", "content": told}, {"role": "user", "content": text}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        likely = []
        for name in labels:
            answer = [*tokenizer(name, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            logits = model(torch.tensor([asked + answer])).logits[0, len(asked) - 1 : -1].detach()
            likely.append(float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()))
        right += max(range(len(labels)), key=likely.__getitem__) == label
    return right / len(rows)


def test_a_promotion_can_ask_for_a_lead_over_the_majority_and_over_a_version(
    swept: tuple[Run, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, said = swept[0], list[str]()
    monkeypatch.setenv("FTLIB_REGISTRY", str(tmp_path / "registry"))
    best, worse = run.trial("001"), run.trial("000")
    promote(run, best, "colours", Conditions(if_better_than="majority"), said.append)
    manifest = registry.current("colours").manifest
    assert manifest["gate"]["tasks"]["found"] == [said[-1].removeprefix("gate: ")]
    assert said[-1].startswith("gate: on labels it has ")
    assert "that also chose the trial): a lead beyond chance" in said[-1]
    value = {
        who: told["numbers"]["accuracy"]["value"]
        for who, told in read_json(run.path / "evaluation.json")["tasks"]["labels"]["contenders"].items()
    }
    wrong = r"it has \S+ % and colours@1 has {:.1f} % .*: (a loss|no lead) beyond chance".format(100 * value["winner"])
    with pytest.raises(FtlibError, match=wrong):  # done now, by the version too
        promote(run, worse, "colours", Conditions(if_better_than="colours"), said.append)
    assert "trial 000 and colours@1 do labels" in said
    with pytest.raises(FtlibError, match=f"and base has {100 * value['base']:.1f} %.*: the margin is 2 points"):
        promote(run, worse, "colours", Conditions(no_worse_than="base"), said.append)
    for wrong_one, reason in (
        ({"if_better_than": "few_shot"}, "is none of majority, base \\(a classifier's\\), and no name in the registry"),
        ({"if_better_than": "base", "task": "label"}, "--task label: a classifier's only task is called labels"),
    ):
        with pytest.raises(InputError, match=reason):
            promote(run, best, "colours", Conditions(**wrong_one), said.append)
    assert [version.id for version in registry.versions("colours")] == ["colours@1"]


def test_an_encoder_cannot_be_asked(tree: dict[str, Any], tmp_path: Path) -> None:
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path)
    assert _writes(Experiment.parse(tree))
    assert not _writes(Experiment.parse({**tree, "model": {"name_or_path": str(tmp_path)}}))


def test_others_are_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="names registry:x: a classifier is compared with the most frequent label"):
        Experiment.parse({**tree, "evaluation": {"against": ["base", "registry:x"]}})
