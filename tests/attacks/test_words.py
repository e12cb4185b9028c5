"""Text of others on its way to a person: on a terminal, in a spreadsheet, in a command to copy; and words in YAML."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlib.config import Experiment, Lora, ModelSection
from ftlib.config.loader import parse_yaml
from ftlib.driver.outcome import Outcome
from ftlib.driver.terminal_listener import tell
from ftlib.errors import ConfigError, FtlibError
from ftlib.files.atomic import write_json
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_csv
from ftlib.run.plain_text import plain

from ..conftest import ftlib
from .conftest import made

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b1;31m\u202etxt [/bold] [link=http://evil]x[/link] :smile:"


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Run:
    return made(str(tmp_path / "runs"), tmp_path / "runs")


def test_control_characters_are_shown_and_do_nothing() -> None:
    assert plain("a\x1b[2Jb\x9bc\rd\u202ee\x00f") == "a\\x1b[2Jb\\x9bc\\rd\\u202ee\\x00f"
    assert plain("größe\t日本\r\n🙂") == "größe\t日本\n🙂"


def test_no_command_sends_codes_of_a_run_to_the_terminal(run: Run) -> None:
    trial = run.trial("000")
    write_json(trial.path / "params.json", {f"train.{EVIL}": EVIL, "n": 1})
    trial.set_state("failed", EVIL)
    write_json(trial.path / "lineage.json", {"cloned_from": EVIL})
    told = run.resolved | {"objective": [f"eval_{EVIL}", "min"]}
    write_json(run.path / "resolved.json", told)
    for command in (
        ("leaderboard", run.path),
        ("leaderboard", "--csv", run.path),
        ("promote", run.path, "000", "--as", "x"),
        ("promote", run.path, EVIL, "--as", "x"),
        ("resume", run.path),
        ("leaderboard", f"{run.path}{EVIL}"),
    ):
        _, output = ftlib(*command)
        assert not any(code in output for code in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e")), command
        assert "defect" not in output, output
    _, output = ftlib("leaderboard", run.path)
    assert "[/bold]" in output  # rich's marks are text


def test_a_spreadsheet_computes_nothing(run: Run) -> None:
    trial = run.trial("000")
    values = ['=HYPERLINK("http://evil")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "plain", "-1e-5", "+3"]
    write_json(trial.path / "params.json", {f"=p{number}": value for number, value in enumerate(values)} | {"n": -1.5})
    trial.set_state("failed", "=1+1")
    head, row = csv.reader(io.StringIO(to_csv(leaderboard(run))))
    cells = dict(zip(head, row, strict=True))
    assert all(name.startswith("'=p") for name in head if "p0" in name)
    assert [cells[f"'=p{number}"] for number in range(5)] == [f"'{value}" for value in values[:5]]
    assert [cells[f"'=p{number}"] for number in range(5, 8)] == ["plain", "-1e-5", "+3"]
    assert (cells["n"], cells["reason"]) == ("-1.5", "'=1+1")


@pytest.mark.parametrize("word", ["off", "none", "no", "false", "None", '"off"', "~", "null"])
def test_words_for_null(tree: dict[str, Any], word: str) -> None:
    absent = yaml.safe_load(word) if word != '"off"' else "off"
    for section, key in (("track", "wandb"), ("model", "quantization"), ("train", "max_steps")):
        changed = {**tree, section: {**tree.get(section, {}), key: absent}}
        assert getattr(getattr(Experiment.parse(changed), section), key) is None
    assert Experiment.parse({**tree, "adapter": absent}).adapter is None
    assert Experiment.parse({**tree, "sweep": absent}).sweep is None


def test_words_that_are_not_null(tree: dict[str, Any]) -> None:
    assert Experiment.parse({**tree, "track": {"wandb": True}}).track.wandb is not None
    assert Experiment.parse({**tree, "model": {**tree["model"], "revision": "none"}}).model.revision == "none"
    with pytest.raises(ConfigError, match="adapter"):
        Experiment.parse({**tree, "adapter": True})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sweep": {"space": {"train.learning_rate": [1, 2]}, "scheduler": False}}, "scheduler: {type: none}"),
        ({"track": {"wandb": "offline"}}, "track.wandb: {mode: offline}"),
        ({"adapter": "lora"}, "adapter: {type: lora}"),
    ],
)
def test_words_for_a_section_are_refused_with_the_right_spelling(tree: dict[str, Any], change: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Experiment.parse({**tree, **change})
    assert f"write {said}." in str(refused.value).replace("sweep.scheduler:", "scheduler:")


def test_yaml_merges_and_an_own_key_wins() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {z: 3}\nc:\n  <<: [*a, *b]\n  y: 5\n"
    assert parse_yaml(text)["c"] == {"x": 1, "y": 5, "z": 3}
    for wrong in ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a\n", "b:\n  x: 1\n  x: 2\n"):
        with pytest.raises(ConfigError, match="stands twice"):
            parse_yaml(wrong)
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("b:\n  <<: 7\n")


def test_merged_bombs_are_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="expand to more than"):
        parse_yaml("\n".join(lines))
    with pytest.raises(ConfigError):
        parse_yaml("a: &a\n  <<: *a\n")


def test_a_command_to_copy_is_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my runs; rm -rf"
    begun = made("x", folder)
    for outcome, command in (
        (Outcome("x", begun, leaderboard(begun), 1, None, interrupted=True), f"ftlib resume '{folder}/"),
        (Outcome("x", begun, leaderboard(begun), 0, None, interrupted=False), f"ftlib promote '{folder}/"),
    ):
        tell(outcome)
        assert command in capsys.readouterr().out
    status, output = ftlib("trial", "stop", made("x", tmp_path / "my runs; rm -rf").path, "000")
    assert status == 2
    assert f"'ftlib resume '{tmp_path}/my runs; rm -rf/" in output


def test_a_long_tmpdir_is_no_defect(tmp_path: Path) -> None:
    """Ray's sockets have a path of at most 107 bytes."""
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    folder.mkdir(parents=True)
    program = "import ray; from ftlib.cluster.session import start_ray; start_ray(1); "
    program += "print(ray.is_initialized()); ray.shutdown()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip().endswith("True"), done.stderr[-2000:]


def test_a_long_ray_tmpdir_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from ftlib.cluster.session import _short_folder

    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 100)
    with pytest.raises(FtlibError, match="too long for Ray's sockets.*RAY_TMPDIR"):
        _short_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert _short_folder() is None


def test_the_layers_of_gpt2_are_listed(tmp_path: Path) -> None:
    from ftlib.models.adapters.build import empty_model

    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = ModelSection(name_or_path=str(tmp_path))
    with pytest.raises(ConfigError, match="Linear layers here: c_attn, c_fc, c_proj"):
        empty_model(model, Lora(type="lora", target_modules=["q_proj"]))
