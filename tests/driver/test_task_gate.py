"""A promotion that depends on tasks: what meets the conditions is promoted with its numbers, and what does not is
not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import DataSection, EvaluationSection
from ftlib.driver.promote import promote
from ftlib.driver.task_gate import Conditions, known_of
from ftlib.errors import FtlibError, InputError
from ftlib.evaluation.results import Contender, do_tasks
from ftlib.evaluation.task import Answer
from ftlib.evaluation.verdict import verdict
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.registry import registry
from ftlib.registry.card import CARD
from ftlib.run import signature
from ftlib.run.directory import Run
from tests.training.test_trial import setting, train

from ..conftest import rows, write_jsonl

ROWS = 200


@pytest.fixture(scope="module")
def trained(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two trials with two tasks. Its winner has done none yet."""
    folder = tmp_path_factory.mktemp("gate")
    test = write_jsonl(folder / "test.jsonl", rows(ROWS))
    tree = {
        "name": "gate",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
        "train": {"learning_rate": 1e-2, "num_train_epochs": 1, "per_device_train_batch_size": 8},
        "evaluation": {
            "tasks": [
                {"name": "tickets", "data": str(test), "metrics": ["exact_match"], "max_new_tokens": 2},
                {"name": "general", "data": str(test), "metrics": ["exact_match"], "role": "regression"},
                {"name": "likely", "data": str(test), "metrics": ["perplexity"], "limit": 12, "max_new_tokens": 1},
            ]
        },
    }
    done = setting(tree, folder)
    run = Run(Path(done.run))
    write_json(run.path / "resolved.json", {**run.resolved, "objective": ["eval_loss", "min"]})
    for trial, rate in (("000", 1e-2), ("001", 1e-2)):
        train(done, trial, {"train.learning_rate": rate})
        run.trial(trial).set_state("finished")
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of this user's, and an empty registry."""
    monkeypatch.setenv("FTLIB_REGISTRY", str(tmp_path / "registry"))
    shutil.copytree(trained.path, tmp_path / "run")
    run = Run(tmp_path / "run")
    signature.sign(run)
    return run


def has_done(run: Run, right: Mapping[str, Mapping[str, int]], **more: Any) -> None:
    """Writes the evaluation of a winner `000`: how many rows of each task each contender has right, the first ones."""
    whole = EvaluationSection.model_validate(run.experiment["evaluation"])
    section = whole.model_copy(update={"tasks": [task for task in whole.tasks if task.name != "likely"]})

    def contender(name: str, counts: Mapping[str, int], what: str) -> Contender:
        def answer(task: Any, questions: Any) -> list[Answer]:
            count = counts[task.name]
            return [Answer(one.reference if row < count else "no") for row, one in enumerate(questions)]

        return Contender(name, what, answer)

    everybody = [contender(name, counts, more.get("what", name)) for name, counts in right.items()]
    data = DataSection.model_validate(run.experiment["data"])
    found = do_tasks(section, data, [lambda one=one: one for one in everybody]).to_dict("winner")
    step = run.trial("000").manifest["step"]
    told = {"winner": "000", "step": step, "ties": [], **found, **more.get("file", {})}
    write_json(run.path / "evaluation.json", {**told, "verdict": verdict(told)})


def promoted(run: Run, trial: str = "000", **conditions: Any) -> list[str]:
    """Promotes, and returns what was said."""
    said: list[str] = []
    promote(run, run.trial(trial), "support", Conditions(**conditions), said.append)
    return said


LEADS = {
    "base": {"tickets": 15, "general": 105},
    "few_shot": {"tickets": 82, "general": 120},
    "winner": {"tickets": 167, "general": 104},
}


def test_a_lead_is_promoted_with_its_evaluation_and_its_card(run: Run) -> None:
    seeds = {"metric": "tickets/exact_match", "values": {"42": 0.835, "43": 0.82}, "mean": 0.83, "std": 0.01}
    has_done(run, LEADS, file={"seeds": {**seeds, "trial": "000"}})
    said = promoted(run, if_better_than="few_shot", task="tickets")
    lead = "on tickets it has 83.5 % and few_shot has 41.0 % (p < 0.001 on 200 rows): a lead beyond chance"
    kept = "on general it has 52.0 % and base has 52.5 % (p = 1.00 on 200 rows): no loss beyond chance"
    assert [f"gate: {lead}", f"gate: {kept}"] == said[-2:]
    manifest = registry.current("support").manifest
    assert manifest["gate"]["tasks"]["found"] == [lead, kept]
    assert manifest["gate"]["tasks"]["if_better_than"] == "few_shot"
    assert manifest["evaluation"]["seeds"]["values"] == {"42": 0.835, "43": 0.82}
    assert (
        manifest["evaluation"]["tasks"]["tickets"]["contenders"]["winner"]["numbers"]["exact_match"]["value"] == 0.835
    )
    card = (registry.current("support").path / CARD).read_text()
    assert f"**{manifest['evaluation']['verdict']}**" in card
    assert "Forgetting: on general it has 52.0 % (exact_match) and the base 52.5 % (p = 1.00): no loss" in card


def test_no_lead_is_not_promoted(run: Run) -> None:
    has_done(run, {**LEADS, "few_shot": {"tickets": 121, "general": 104}, "winner": {"tickets": 122, "general": 104}})
    with pytest.raises(FtlibError) as refused:
        promoted(run, if_better_than="few_shot", task="tickets")
    assert str(refused.value) == (
        "trial 000 was not promoted: on tickets it has 61.0 % and few_shot has 60.5 % (p = 1.00 on 200 rows): no lead "
        "beyond chance."
    )
    assert registry.names() == []


def test_what_has_forgotten_is_not_promoted(run: Run) -> None:
    has_done(run, {**LEADS, "winner": {"tickets": 167, "general": 60}})
    with pytest.raises(FtlibError, match=r"promoted: on general it has 30.0 % and base has 52.5 % \(p < 0.001 on 200"):
        promoted(run, if_better_than="few_shot", task="tickets")
    with pytest.raises(FtlibError, match="a loss beyond chance"):
        promoted(run, no_worse_than="base", task="tickets")
    assert registry.names() == []


def test_no_worse_asks_for_the_whole_interval(run: Run) -> None:
    has_done(run, {**LEADS, "base": {"tickets": 171, "general": 104}})  # 2 points better than the trial
    with pytest.raises(FtlibError, match=r"85.5 % \(at most 4.\d+ points worse, on 200 rows\): the margin is 2 points"):
        promoted(run, no_worse_than="base", task="tickets")
    assert "the margin is 6 points" in promoted(run, no_worse_than="base", margin=0.06, task="tickets")[-2]


def test_numbers_of_another_state_of_the_winner_are_not_its(run: Run) -> None:
    has_done(run, LEADS, file={"step": 1})
    assert known_of(run, run.trial("000")) is None
    assert known_of(run, run.trial("001")) is None
    promoted(run)
    assert "evaluation" not in registry.current("support").manifest
    assert "It was evaluated on no task" in (registry.current("support").path / CARD).read_text()


def test_a_damaged_evaluation_is_said(run: Run) -> None:
    has_done(run, LEADS)
    told = read_json(run.path / "evaluation.json", dict)
    told["tasks"]["tickets"]["rows"] = "many"
    write_json(run.path / "evaluation.json", told)
    with pytest.raises(FtlibError, match=r"evaluation.json is damaged.*rows"):
        promoted(run)


def test_a_version_is_the_one_that_it_was_then(run: Run) -> None:
    registry.register(run, run.trial("001"), "old")
    has_done(run, {**LEADS, "registry:old": LEADS["base"]}, what="old@1")
    assert "and old@1 has 7.5 %" in promoted(run, if_better_than="old", task="tickets")[-3]
    registry.register(run, run.trial("001"), "old")
    write_json(run.path / "signature.json", {})
    with pytest.raises(InputError, match="doing its tasks can run any code"):  # old@2 has done none of them
        promoted(run, if_better_than="old", task="tickets")


def test_tasks_that_were_not_done_are_done_now(run: Run) -> None:
    """A trial that is not the winner, beside the base and beside a version of the registry."""
    resolved = run.resolved
    tasks = resolved["experiment"]["evaluation"]["tasks"]
    resolved["experiment"]["evaluation"]["tasks"] = [task for task in tasks if task["name"] == "likely"]
    write_json(run.path / "resolved.json", resolved)
    signature.sign(run)
    has_said = promoted(run, "001", if_better_than="base")
    assert "trial 001 and base do likely" in has_said
    assert "): a lead beyond chance" in has_said[-1]
    evaluation = registry.current("support").manifest["evaluation"]
    assert set(evaluation["tasks"]["likely"]["contenders"]) == {"base", "winner"}
    with pytest.raises(FtlibError, match=r"it has (\S+) and support@1 has \1 \(p = 1.00 on 12 rows\): no lead"):
        promoted(run, "001", if_better_than="support")
    assert [version.id for version in registry.versions("support")] == ["support@1"]
    assert json.dumps(rows(1)[0]["prompt"])[1:-1] not in json.dumps(evaluation)


def test_the_version_that_the_name_means_when_it_moves_is_compared_with(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ftlib.driver.task_gate import TaskGate

    registry.register(run, run.trial("001"), "support")
    has_done(run, {**LEADS, "registry:support": LEADS["base"]}, what="support@1")
    decide, heard = TaskGate.decide, list[str]()

    def overtaken(self: TaskGate, staged: Any) -> Any:
        heard.append(registry.current("support").id)
        if heard == ["support@1"]:
            found = decide(self, staged)
            registry.register(run, run.trial("001"), "support")
            return found
        raise FtlibError("compared again")

    monkeypatch.setattr(TaskGate, "decide", overtaken)
    with pytest.raises(FtlibError, match="compared again"):
        promoted(run, if_better_than="support", task="tickets")
    assert heard == ["support@1", "support@2"]


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ({"if_better_than": "base", "gate": False}, "--if-better-than is a check of the gate, which --no-gate skips"),
        ({"margin": 0.1}, "say than whom by --no-worse-than NAME"),
        ({"no_worse_than": "base", "margin": 0.0}, "--margin 0 is none"),
        ({"task": "tickets"}, "say with whom"),
        ({"if_better_than": "base", "no_worse_than": "base"}, "leave it out"),
        ({"if_better_than": "base", "task": "ticket"}, "--task ticket: the tasks of .* Did you mean 'tickets'"),
        ({"if_better_than": "few-shot"}, "--if-better-than few-shot: .* Did you mean 'few_shot'"),
        ({"no_worse_than": "rag"}, "has no evaluation.passages"),
    ],
)
def test_conditions_that_cannot_be_met(run: Run, conditions: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        promoted(run, **conditions)
    assert registry.names() == []


def test_an_experiment_without_tasks_is_told_what_to_write(run: Run) -> None:
    resolved = run.resolved
    resolved["experiment"]["evaluation"]["tasks"] = []
    write_json(run.path / "resolved.json", resolved)
    with pytest.raises(InputError, match=r"has no tasks to compare on: write evaluation: \{tasks: "):
        promoted(run, if_better_than="base")
