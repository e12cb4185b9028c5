"""A sweep that ends with what it was worth: the real driver, on a tiny base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftlib.cli.compare import _asked
from ftlib.cli.preview import _tasks
from ftlib.config import DataSection, Experiment, ModelSection
from ftlib.driver.contenders import Contenders, at_url
from ftlib.driver.evaluate import compare_winner, evaluate_winner
from ftlib.driver.listener import Listener
from ftlib.driver.seeds import why_fewer
from ftlib.driver.task_worker import on_a_worker
from ftlib.errors import DataError, FtlibError, InputError
from ftlib.evaluation.task import Question
from ftlib.files.json_files import read_json
from ftlib.run.directory import Run
from tests.conftest import ftlib, only_run, rows, write_experiment, write_jsonl
from tests.evaluation.test_judge import KEY, Server, server

__all__ = ["server"]


@pytest.fixture(scope="module")
def worth(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> tuple[Run, str]:
    """Two trials in a pack, compared by a task, and the better one trained again with another seed."""
    folder = tmp_path_factory.mktemp("worth")
    asked = write_jsonl(folder / "test.jsonl", rows(24))
    tree = {
        "name": "colours",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 16, "lora_alpha": 32},
        "train": {"max_steps": 200, "per_device_train_batch_size": 8, "logging_steps": 100, "eval_strategy": "end"},
        "evaluation": {
            "tasks": [
                {"name": "colours", "data": str(asked), "metrics": ["exact_match", "token_f1"], "max_new_tokens": 8},
                {"name": "kept", "data": str(asked), "metrics": ["token_f1"], "role": "regression", "limit": 8},
            ],
            "against": ["base", "few_shot"],
            "few_shot": 2,
            "seeds": 2,
        },
        "sweep": {
            "space": {"train.learning_rate": [1e-4, 1e-2]},
            "search": {"type": "grid"},
            "metric": "colours/exact_match",
            "pack": 2,
        },
        "track": {"wandb": None, "tensorboard": False},
        "storage": str(folder / "runs"),
    }
    status, output = ftlib("sweep", write_experiment(folder / "x.yaml", tree))
    assert status == 0, output
    return only_run(folder / "runs"), output


def test_a_sweep_ends_with_its_verdict(worth: tuple[Run, str]) -> None:
    run, output = worth
    found = read_json(run.path / "evaluation.json")
    assert found["verdict"] in " ".join(output.split())
    assert found["verdict"].startswith("colours: ")
    assert "few-shot base 0.0 %" in found["verdict"] or "base 0.0 %" in found["verdict"]
    assert "2 seeds ± " in found["verdict"]
    assert found["winner"] == "001"
    assert found["failed"] == []
    assert found["ties"][0] == "001"
    task = found["tasks"]["colours"]
    assert task["rows"] == 12  # trials have answered the other half
    assert set(task["contenders"]) == {"base", "few_shot", "winner", "seed 43"}
    assert {(one["ours"], one["theirs"]) for one in task["comparisons"]} >= {("winner", "base"), ("winner", "few_shot")}
    assert found["tasks"]["kept"]["rows"] == 8
    assert (run.path / "report.html").exists()


def test_a_replica_is_no_rival_on_the_leaderboard(worth: tuple[Run, str]) -> None:
    run, output = worth
    replica = run.trial("002")
    assert replica.lineage["replica_of"] == "001"
    assert replica.state == "finished"
    assert "002, 001 with seed 43" in output
    seeds = read_json(run.path / "evaluation.json")["seeds"]
    assert seeds["metric"] == "colours/exact_match"
    assert list(seeds["values"]) == ["42", "43"]


def test_the_answers_are_those_of_transformers_row_by_row(worth: tuple[Run, str], base: Path) -> None:
    run, _ = worth
    told = [json.loads(line) for line in (run.path / "answers.jsonl").read_text().splitlines()]
    found = read_json(run.path / "evaluation.json")["tasks"]["colours"]["contenders"]
    model = AutoModelForCausalLM.from_pretrained(base)
    for name, weights in {"base": None, "winner": run.trial("001").weights}.items():
        tokenizer = AutoTokenizer.from_pretrained(weights or base)
        model = PeftModel.from_pretrained(model, weights).eval() if weights else model.eval()
        mine = [row for row in told if row["contender"] == name and row["task"] == "colours"]
        for row in mine:
            text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
            assert row["answer"] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            assert row["scores"]["exact_match"] == float(" ".join(row["answer"].split()) == row["reference"])
        share = sum(row["scores"]["exact_match"] for row in mine) / len(mine)
        assert found[name]["numbers"]["exact_match"]["value"] == pytest.approx(share)


def test_an_evaluation_that_was_cut_off_is_made_by_resume(worth: tuple[Run, str]) -> None:
    run, _ = worth
    before = read_json(run.path / "evaluation.json")
    (run.path / "evaluation.json").unlink()
    status, output = ftlib("resume", run.path)
    assert status == 0, output
    after = read_json(run.path / "evaluation.json")
    assert after["tasks"] == _without_speed(after, before)["tasks"]
    assert after["verdict"] == before["verdict"]


def _without_speed(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    for name, task in before["tasks"].items():
        for one, contender in task["contenders"].items():
            for key in ("tokens_per_second", "seconds_per_answer"):
                contender[key] = after["tasks"][name]["contenders"][one][key]
    return before


def test_models_of_each_kind_do_a_file(worth: tuple[Run, str], base: Path, tmp_path: Path) -> None:
    run, _ = worth
    file, shown = write_jsonl(tmp_path / "test.jsonl", rows(8)), write_jsonl(tmp_path / "shown.jsonl", rows(40)[20:])
    status, output = ftlib(
        "evaluate", run.path, run.path / "trials" / "000", base, file, "--max-new-tokens", "8",
        "--few-shot", "1", "--examples", shown, "--out", tmp_path / "out",
    )  # fmt: skip
    assert status == 0, output
    found = read_json(tmp_path / "out" / "evaluation.json")["tasks"]["task"]
    assert list(found["contenders"]) == [
        str(run.path),
        str(run.path / "trials" / "000"),
        str(base),
        f"{base} (few-shot)",
    ]
    assert len((tmp_path / "out" / "answers.jsonl").read_text().splitlines()) == 4 * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["registry:nobody", "FILE"], "nobody"),
        (["BASE", "gone.jsonl"], "gone.jsonl"),
        (["BASE", "FILE", "--metric", "exact_mtch"], "exact_mtch"),
        (["BASE", "FILE", "--few-shot", "2"], "--examples"),
        (["BASE", "FILE", "--metric", "{type: regex"], "it is no mapping"),
        (["BASE", "FILE", "--metric", "number"], "has no number"),
        (["BASE", "FILE", "--few-shot", "2", "--examples", "FILE"], "--examples has no single question"),
        (["BASE", "FILE", "--few-shot", "2", "--examples", "gone.jsonl"], "--examples: no such file"),
        (["BASE", "FILE", "--examples", "FILE"], "say how many"),
        (["BASE", "FILE", "--out", "FILE"], "is a file"),
        (["BASE"], "the FILE of questions"),
        (["FILE", "BASE"], "The file of questions comes last"),
        (["BASE", "BASE"], "is the folder of a model"),
        (["BASE", "org/nobody", "FILE"], "MODEL: 'org/nobody' is neither"),
        (["https://localhost/v1", "FILE"], "#MODEL"),
        (["https://localhost/v1#m", "FILE", "--metric", "perplexity"], "needs the model itself"),
        (["https://localhost/v1#m", "--benchmark", "arc_easy"], "is a URL"),
        (["BASE", "--benchmark", "arc_easy", "--system", "Hi"], "--system belongs to a FILE"),
        (["BASE", "--benchmark", ","], "names no benchmark"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    arguments: list[str], message: str, base: Path, tmp_path: Path, ftlib_home: Path
) -> None:
    file = write_jsonl(tmp_path / "test.jsonl", rows(4))
    status, output = ftlib("evaluate", *[{"BASE": base, "FILE": file}.get(word, word) for word in arguments])
    assert status == 2
    assert message in output
    assert "s/answer" not in output  # nobody was asked


def test_a_run_without_a_winner_and_a_trial_that_is_not_there_are_said(tmp_path: Path) -> None:
    (tmp_path / "run" / "trials" / "000").mkdir(parents=True)
    (tmp_path / "run" / "resolved.json").write_text(json.dumps({"objective": ["eval_loss", "min"]}))
    for name, message in (("run", "has no trial with an evaluation yet"), ("run/trials/00", "Did you mean '000'?")):
        status, output = ftlib("evaluate", tmp_path / name, write_jsonl(tmp_path / "test.jsonl", rows(2)))
        assert (status, message in output) == (2, True), output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"against": ["bse"]},
            "'bse' is none of base, few_shot, rag, registry:NAME, https://HOST/v1#MODEL, and no folder. Did you mean "
            "'base'",
        ),
        ({"against": ["ftp://x/v1#m"]}, "'ftp://x/v1#m' is none of"),
        (
            {"against": ["https://x.example/v1#m"], "key_env": {"x.example": "NOT_SET"}},
            "evaluation.key_env names NOT_SET, which the environment does not have",
        ),
        ({"tasks": [{"name": "t", "data": "gone.jsonl", "metrics": ["exact_match"]}]}, "evaluation.tasks.t.data"),
        ({"tasks": [{"name": "t", "data": "FILE", "metrics": ["number"]}], "against": []}, "has no number"),
    ],
)
def test_tasks_are_read_before_anything_is_trained(
    change: dict[str, Any], message: str, tree: dict[str, Any], tmp_path: Path
) -> None:
    from ftlib.config import Experiment
    from ftlib.driver.evaluate import check_tasks

    file = write_jsonl(tmp_path / "test.jsonl", rows(4))
    tree["evaluation"] = {"tasks": [{"name": "t", "data": "FILE", "metrics": ["exact_match"]}], **change}
    for task in tree["evaluation"]["tasks"]:
        task["data"] = task["data"].replace("FILE", str(file))
    with pytest.raises((FtlibError, DataError)) as caught:
        check_tasks(Experiment.parse(tree))
    assert message in str(caught.value)


def test_what_was_not_done_is_said_and_the_status_is_not_zero(worth: tuple[Run, str], tmp_path: Path) -> None:
    """Neither a defect nor a judge that is away ends a sweep; neither looks like success."""
    run, _ = worth
    file = run.path / "evaluation.json"
    kept, events = file.read_text(), (run.path / "events.jsonl").read_text()
    try:
        file.write_text(json.dumps({**json.loads(kept), "failed": ["few_shot did not do colours: it is away."]}))
        status, output = ftlib("resume", run.path)
        assert (status, "few_shot did not do colours: it is away." in output) == (1, True)
        file.unlink()
        experiment = Experiment.parse(run.resolved["experiment"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ftlib.driver.evaluate.compare_winner", lambda *given: {}["a defect"])
            evaluate_winner(experiment, run, Listener(), None)
        status, output = ftlib("resume", run.path)
        assert (status, "the winner was not evaluated: KeyError: 'a defect'" in output) == (1, True)
    finally:
        file.write_text(kept)
        (run.path / "events.jsonl").write_text(events)


def test_a_key_goes_to_the_host_that_it_is_named_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with pytest.raises(InputError, match="would travel unencrypted") as caught:
        at_url("http://models.example/v1#m", {"models.example": "MY_KEY"})
    assert "sk-secret" not in str(caught.value)
    assert at_url("http://models.example/v1#m", {"others.example": "MY_KEY"}).name
    file = write_jsonl(tmp_path / "test.jsonl", rows(2))
    for given, says in (("model.example=MY_KEY", "Did you mean 'models.example'?"), ("MY_KEY", "is not HOST=NAME")):
        status, output = ftlib("evaluate", "https://models.example/v1#m", file, "--key-env", given)
        assert (status, says in output) == (2, True), output


def test_a_model_behind_a_url_is_compared_with(server: Server, tree: dict[str, Any], tmp_path: Path) -> None:
    file, host = write_jsonl(tmp_path / "test.jsonl", rows(4)), server.url.split("/")[2]
    task = {"name": "t", "data": str(file), "metrics": ["exact_match"], "max_new_tokens": 7}
    tree["evaluation"] = {"tasks": [task], "against": [f"{server.url}#big"], "key_env": {host: "JUDGE_KEY"}}
    experiment = Experiment.parse(tree)
    url = list(_tasks(experiment))[-1]
    assert url == f"a URL:      big at {server.url}, with the key in JUDGE_KEY: 4 requests at the end"
    contenders = Contenders(DataSection(train=str(file)), ModelSection(name_or_path="none"))
    contender = contenders.named(experiment.evaluation.against[0], experiment.evaluation)
    server.reply = lambda text: f"{text} is asked"
    (answer,) = contender.answer(experiment.evaluation.tasks[0], [Question(({"role": "user", "content": "x"},), "y")])
    ((body, headers),) = server.asked
    assert (answer.text, body["model"], body["max_tokens"]) == ("x is asked", "big", 7)
    assert headers["authorization"] == f"Bearer {KEY}"


def test_two_models_answer_a_file_for_people_to_judge(worth: tuple[Run, str], base: Path, tmp_path: Path) -> None:
    run, _ = worth
    file = write_jsonl(tmp_path / "test.jsonl", [{"prompt": row["prompt"]} for row in rows(24)])  # nobody knows better
    options = {"max_new_tokens": 8, "limit": 6, "system": None, "keys": {}, "trust": False}
    found = _asked(str(run.path), str(base), str(file), options)
    told = [json.loads(line) for line in (run.path / "answers.jsonl").read_text().splitlines()]
    of_winner = {line["prompt"][-1]["content"]: line["answer"] for line in told if line["contender"] == "winner"}
    assert (found.a, found.b, found.unpaired) == (str(run.path), str(base), 0)
    there = [pair for pair in found.pairs if pair.prompt[-1]["content"] in of_winner]
    assert there
    assert [pair.a for pair in there] == [of_winner[pair.prompt[-1]["content"]] for pair in there]
    assert found.open


def test_fewer_seeds_than_asked_for_are_said(worth: tuple[Run, str]) -> None:
    run, _ = worth
    experiment = Experiment.parse(run.resolved["experiment"])
    assert why_fewer(experiment, run, "001") == []
    more = experiment.model_copy(update={"evaluation": experiment.evaluation.model_copy(update={"seeds": 3})})
    (sentence,) = why_fewer(more, run, "001")
    assert sentence == "evaluation.seeds asks for 3 trainings of the winner, and 2 came to their end."


def test_a_worker_of_the_cluster_finds_the_same(worth: tuple[Run, str]) -> None:
    """Where trials train on GPUs, the tasks are done where there is one."""
    run, _ = worth
    experiment = Experiment.parse(run.resolved["experiment"])
    template = run.trial("001").manifest["chat_template"]
    here, elsewhere = compare_winner(experiment, run, "001", template), on_a_worker(experiment, run, "001", template)
    numbers = [
        {name: one["numbers"] for name, one in told["tasks"]["colours"]["contenders"].items()}
        for told, _ in (here, elsewhere)
    ]
    assert numbers[0] == numbers[1]
    assert len(here[1]) == len(elsewhere[1])
    told, _ = on_a_worker(experiment, run, "404", template)
    assert told["failed"][-1].startswith("trial 404 of colours-")
