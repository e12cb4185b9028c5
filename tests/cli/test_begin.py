"""The first hour: from a file of data to an experiment that passes `check`, and the shell's and the editor's help."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import click.shell_completion
import jsonschema
import pytest

from ftlib.cli import cli
from ftlib.config import Experiment
from ftlib.config.loader import parse_yaml
from ftlib.data.look import look
from ftlib.driver.draft import SMALL
from ftlib.errors import DataError
from ftlib.run.directory import Run
from tests.conftest import ftlib, rows, write_jsonl

CHAT = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This."}]
DATA: dict[str, tuple[list[Any], str, str, dict[str, str]]] = {
    # rows, the format that they have, the method that they are for, our columns by their names
    "questions": (
        [{"question": row["prompt"], "answer": row["completion"], "id": n} for n, row in enumerate(rows(30))],
        "prompt_completion", "sft", {"prompt": "question", "completion": "answer"},
    ),
    "chats": ([{"conversations": CHAT}] * 10, "sharegpt", "sft", {}),
    "dialogues": (
        [{"dialog": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 10,
        "messages", "sft", {"messages": "dialog"},
    ),
    "alpaca": ([{"instruction": "a", "input": "", "output": "b"}] * 10, "alpaca", "sft", {}),
    "pairs": ([{"prompt": "a", "chosen": f"b {n}", "rejected": "c"} for n in range(10)], "preference", "dpo", {}),
    "better": (
        [{"question": "a", "preferred": f"b {n}", "dispreferred": "c"} for n in range(10)],
        "preference", "dpo", {"prompt": "question", "chosen": "preferred", "rejected": "dispreferred"},
    ),
    "judged": ([{"prompt": "a", "completion": f"b {n}", "label": n % 2 == 0} for n in range(10)], "kto", "kto", {}),
    "reviews": (
        [{"review": f"text number {n}", "sentiment": ["good", "bad"][n % 2]} for n in range(40)],
        "classification", "classify", {"text": "review", "label": "sentiment"},
    ),
    "by_content": (
        [
            {"who": f"person {n}", "what": f"a longer text of person {n}", "where": ["here", "there"][n % 2]}
            for n in range(40)
        ],
        "classification", "classify", {"text": "what", "label": "where"},
    ),
    "texts": ([{"content": f"a plain text {n}"} for n in range(10)], "text", "pretrain", {"text": "content"}),
}  # fmt: skip


CHECKED = ("questions", "better", "judged", "by_content", "texts")  # each takes a second and more


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no nvidia-smi, whatever the machine
    return tmp_path


@pytest.mark.parametrize("name", DATA)
def test_a_drawn_up_experiment_passes_check(name: str, here: Path, base: Path) -> None:
    values, format_name, method, columns = DATA[name]
    write_jsonl(here / f"{name}.jsonl", values)
    status, output = ftlib("init", f"{name}.jsonl", "--model", base)
    assert status == 0, output
    assert f"{len(values)} rows, {format_name}" in output
    experiment = Experiment.load(f"{name}.yaml")
    assert (experiment.data.format, experiment.method.type, experiment.data.columns) == (format_name, method, columns)
    assert experiment.sweep is not None
    assert experiment.sweep.prior == "auto"
    text = Path(f"{name}.yaml").read_text()
    assert len(text.splitlines()) <= 30
    if name in CHECKED:
        status, output = ftlib("check", f"{name}.yaml")
        assert status == 0, output


def test_init_names_its_schema_and_writes_over_nothing(here: Path, base: Path) -> None:
    write_jsonl(here / "x.jsonl", rows(10))
    assert ftlib("init", "x.jsonl")[0] == 0
    first, *_ = Path("x.yaml").read_text().splitlines()
    assert first.startswith("# yaml-language-server: $schema=/")
    schema = json.loads(Path(first.partition("$schema=")[2]).read_text())
    jsonschema.Draft7Validator(schema).validate(parse_yaml(Path("x.yaml").read_text()))
    assert json.loads(ftlib("schema")[1]) == schema
    Path("x.yaml").write_text("mine")
    status, output = ftlib("init", "x.jsonl")
    assert (status, Path("x.yaml").read_text()) == (2, "mine")
    assert "x.yaml is there already: --force writes over it" in output
    assert ftlib("init", "x.jsonl", "--force", "--name", "other", "--out", "x.yaml")[0] == 0
    assert Experiment.load("x.yaml").name == "other"


def test_init_sees_size_lengths_labels_and_bad_rows(here: Path) -> None:
    few = [{"text": "a word " * (1 + n % 3), "label": "yes" if n % 4 else "no"} for n in range(60)]
    write_jsonl(here / "few.jsonl", [*few, {"text": "", "label": "no"}])
    status, output = ftlib("init", "few.jsonl")
    assert status == 0, output
    assert "labels: 2: yes (45), no (15)" in output
    drawn = Experiment.load("few.yaml")
    assert (drawn.data.on_bad_row, drawn.data.max_length, drawn.data.eval_split) == ("skip", 64, 0.2)
    assert (drawn.train.num_train_epochs, drawn.train.per_device_train_batch_size) == (5, 4)
    assert drawn.model.name_or_path.endswith((SMALL["reads"][0].split("/")[-1], SMALL["reads"][1]))
    text = Path("few.yaml").read_text()
    assert "1 rows cannot be used, first few.jsonl:61: 'text' is empty" in text
    assert "the rarest, 'no', has 15 rows" in text
    write_jsonl(here / "many.jsonl", [{"prompt": "a " * 4000, "completion": "b"}] * 1200)
    assert ftlib("init", "many.jsonl")[0] == 0
    many = Experiment.load("many.yaml")
    assert (many.data.max_length, many.train.num_train_epochs, many.data.eval_split) == (2752, 2, 0.0833)
    assert (many.train.per_device_train_batch_size, many.train.gradient_accumulation_steps) == (2, 4)
    assert (many.train.max_steps, many.scale.use_gpu) == (100, False)
    (here / "bin").mkdir()
    (here / "bin" / "nvidia-smi").touch(0o755)
    assert ftlib("init", "many.jsonl", "--force")[0] == 0
    many = Experiment.load("many.yaml")
    assert (many.train.max_steps, many.scale.use_gpu, many.data.eval_split) == (None, True, 0.1)


def test_labels_that_differ_in_case_alone_become_one(here: Path) -> None:
    write_jsonl(here / "x.jsonl", [{"text": f"text {n}", "label": ["Yes", "yes", "no"][n % 3]} for n in range(30)])
    assert ftlib("init", "x.jsonl")[0] == 0
    assert Experiment.load("x.yaml").data.labels.case == "lower"


def test_a_table_without_a_header_is_read_by_position(here: Path) -> None:
    (here / "x.tsv").write_text("".join(f"a text of some length, number {n}\t{n % 2}\n" for n in range(40)))
    assert ftlib("init", "x.tsv")[0] == 0
    drawn = Experiment.load("x.yaml")
    assert (drawn.data.columns, drawn.method.type) == ({"text": "0", "label": "1"}, "classify")


def test_goals(here: Path, base: Path) -> None:
    write_jsonl(here / "x.jsonl", rows(10))
    status, output = ftlib("init", "x.jsonl", "--goal", "distill")
    assert status == 2
    assert "--goal distill needs --teacher" in output
    assert ftlib("init", "x.jsonl", "--goal", "distill", "--teacher", base)[0] == 0
    assert Experiment.load("x.yaml").method.type == "distill"
    status, output = ftlib("init", "x.jsonl", "--goal", "prefer", "--force")
    assert status == 2
    assert "holds prompt_completion rows, and this goal learns from preference or kto" in output
    with pytest.raises(DataError, match="do not say what is learned"):
        look(str(write_jsonl(here / "y.jsonl", [{"a": 1, "b": 2}])))
    status, output = ftlib("init", "nowhere.jsonl")
    assert status == 2
    assert "no such file or folder: 'nowhere.jsonl'" in output


def proposed(*words: str) -> list[str]:
    *before, begun = words
    shell = click.shell_completion.ShellComplete(cli, {}, "ftlib", "_FTLIB_COMPLETE")
    return [item.value for item in shell.get_completions(list(before), begun)]


def test_the_shell_proposes_keys() -> None:
    assert "train.learning_rate=" in proposed("sweep", "x.yaml", "train.lea")
    assert proposed("train", "x.yaml", "train.seed=1", "adapter.lora_al") == ["adapter.lora_alpha="]
    assert "sweep.space.adapter.r=" in proposed("check", "x.yaml", "sweep.space.ad")
    assert "completion" in proposed("comp")


def test_the_shell_proposes_runs_trials_and_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create(here / "runs", "tries", "", {}, "tries-1")
    for trial in ("000", "001"):
        run.trial(trial).path.mkdir(parents=True)
    assert proposed("resume", "") == ["runs/tries-1"]
    assert proposed("leaderboard", "runs/tr") == ["runs/tries-1"]
    assert proposed("leaderboard", "ru") == ["runs/"]
    assert proposed("trial", "stop", "runs/tries-1", "00") == ["000", "001"]
    assert proposed("promote", "runs/tries-1", "001") == ["001"]
    assert proposed("trial", "stop", "runs/nothing", "") == []
    monkeypatch.setenv("FTLIB_HOME", str(here / "home"))
    assert proposed("rollback", "") == []
    (here / "home" / "registry" / "triage").mkdir(parents=True)
    assert proposed("rollback", "tr") in (["triage"], [])  # a name without an alias may be left out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_reads(shell: str) -> None:
    status, output = ftlib("completion", shell)
    assert status == 0
    assert "_FTLIB_COMPLETE" in output
    if shell == "bash":
        command = [shell, "--norc", "-c", f"{output}\ncomplete -p ftlib"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "ftlib" in done.stdout, done.stderr
