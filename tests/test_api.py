"""The Python API: the same code as the commands, and a notebook that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ftlib
from ftlib.errors import ConfigError, InputError
from ftlib.registry import registry
from tests.conftest import ROOT, write_experiment
from tests.conftest import ftlib as command
from tests.serve.conftest import free_port

NOTEBOOK = ROOT / "experiments" / "from_python.ipynb"


def test_what_it_offers_is_sorted_and_there() -> None:
    assert sorted(ftlib.__all__) == ftlib.__all__
    assert all(getattr(ftlib, name).__doc__ for name in ftlib.__all__)
    assert set(ftlib.__all__) <= set(dir(ftlib))
    with pytest.raises(AttributeError, match="swep"):
        _ = ftlib.swep


def test_its_import_is_light() -> None:
    """What it needs is imported when it is asked for."""
    code = "import sys, ftlib; print(sorted(set(sys.modules) & {'torch', 'ray', 'pydantic', 'transformers', 'yaml'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def file(tree: dict[str, Any], tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "x.yaml", tree)


def test_a_training_is_silent_unless_asked(
    file: Path, ray_local: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ftlib.train(file, {"train.max_steps": 2, "name": "silent"})
    assert capfd.readouterr() == ("", "")
    assert not run.interrupted
    assert run.path.name.startswith("silent-")
    [trial] = run.trials
    assert trial == run.best
    assert trial.state == "finished"
    assert trial.metrics()[-1]["step"] == 2
    assert (trial.weights / "adapter_model.safetensors").is_file()
    assert str(run.leaderboard()).count("\n") > 2
    assert "000" in str(run.leaderboard())
    again = ftlib.resume(run.path, verbose=True)
    assert again.path == run.path
    assert "promote the winner" not in capfd.readouterr().out  # that line is the command's
    _, told = command("resume", run.path)
    assert str(again.leaderboard()).splitlines()[1] in told


def test_what_is_not_as_asked_is_said(file: Path, ray_local: None, capfd: pytest.CaptureFixture[str]) -> None:
    """A rate that breaks one of two trials: the run has a winner, and the failure is not silent."""
    sweep = {"space": {"train.learning_rate": [1e-3, 1e30]}, "search": {"type": "grid"}, "scheduler": {"type": "none"}}
    run = ftlib.sweep(file, {"train.max_steps": 4, "sweep": sweep})
    assert [trial.state for trial in run.trials] == ["finished", "failed"]
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("ftlib: warning: trial 001 failed: ")


def test_what_is_wrong_is_raised_as_the_command_says_it(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no sweep section: add one, or use ftlib.train"):
        ftlib.sweep(file)
    with pytest.raises(ConfigError, match="train.learning_rat.*learning_rate"):
        ftlib.train(file, {"train.learning_rat": 1e-3})
    with pytest.raises(InputError, match="no run directory"):
        ftlib.open_run(tmp_path / "nothing")


def test_conditions_are_those_of_the_command(swept: tuple[Any, str]) -> None:
    best = ftlib.open_run(swept[0].path).best
    with pytest.raises(InputError, match=r"promote takes canary, engine, .*; not all of canari are among them"):
        best.promote("from-python", canari=0.1)
    version = best.promote("from-python", max_rank=8)
    assert registry.current("from-python") == version
    assert version.manifest["trial"] == best.id


def test_the_notebook_runs(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    namespace: dict[str, Any] = {}
    changes = {
        '".cache/models/smollm2-135m-instruct", 20, 4': f'"{base}", 2, 2',
        '"train.max_steps"': f'"storage": "{tmp_path}/runs", "train.max_steps"',
        "8123": str(free_port()),
    }
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            for old, new in changes.items():
                source = source.replace(old, new)
            exec(compile(source, str(NOTEBOOK), "exec"), namespace)
    assert len(namespace["run"].trials) == 2
    assert namespace["version"].id == "notebook@1"
    assert namespace["answer"].choices[0].finish_reason in ("stop", "length")
