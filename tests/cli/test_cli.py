"""The doors: what they say, what they import, and their exit status."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftlib.run.directory import Run
from tests.conftest import ftlib, only_run, write_experiment


def imported_by(code: str) -> set[str]:
    command = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


HEAVY = {"torch", "transformers", "ray", "trl", "peft", "datasets", "wandb", "optuna", "pandas", "numpy"}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['ftlib', '--help']\nfrom ftlib import cli\ntry: cli.main()\nexcept SystemExit: pass"
    assert not imported_by(code) & (HEAVY | {"pydantic", "rich"})


@pytest.mark.parametrize(
    "module",
    [
        "api",
        "config",
        "data",
        "driver.outcome",
        "errors",
        "files.object_store",
        "models.adapter_files",
        "registry.drift",
        "registry.keys",
        "registry.monitor",
        "registry.profile",
        "registry.registry",
        "run.directory",
        "run.leaderboard",
        "run.remote_run",
        "run.tracking",
    ],
)
def test_what_reads_runs_and_versions_imports_nothing_heavy(module: str) -> None:
    assert not imported_by(f"import ftlib.{module}") & HEAVY


def test_reading_an_experiment_needs_no_torch() -> None:
    path = Path(__file__).parents[2] / "experiments" / "sft_lora.yaml"
    assert not imported_by(f"from ftlib.config import Experiment; Experiment.load({str(path)!r})") & HEAVY


def test_check_resolves_and_estimates(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["sweep"] = {"space": {"adapter.r": [2, 4]}, "num_samples": 5}
    file = write_experiment(tmp_path / "x.yaml", tree)
    status, output = ftlib("check", file, "train.seed=7", "--all")
    assert status == 0, output
    assert "seed: 7" in output
    assert "lr_scheduler_type: cosine" in output
    assert "parameters: " in output
    assert "8 optimizer steps" in output
    assert "MiB a worker" in output
    assert "5 trials" in output
    assert not Path(tree["storage"]).exists()  # it starts nothing
    status, output = ftlib("check", file)
    rows = [line for line in output.splitlines() if line.startswith("rows: ")]
    assert re.search(r"all \d+ rows were looked at", rows[0])
    assert 2 <= len(rows) <= 10
    lines = [line for line in output.splitlines() if line not in rows]
    assert (status, len(lines) <= 11) == (0, True), output
    assert "lr_scheduler_type" not in output
    assert [line.split(":")[0] for line in lines[:5]] == ["data", "tokens", "model", "parameters", "a trial"]
    assert re.search(r"time: +about \d+ s a trial on this machine", output)
    assert "compared by eval_loss (lower is better), in packs on one shared base" in output
    assert "space:      adapter.r 2|4; optuna proposes, no trial is stopped early: none is before 20 steps or" in output
    assert "evaluated:  once on all 16 rows, about" in output
    assert lines[-1].startswith("odd:        a trial has 8 optimizer steps, in which little is learned")


def test_a_missing_file_is_said_before_libraries_are_imported(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["data"]["train"] = [str(tmp_path / "there.jsonl"), str(tmp_path / "not_ther.jsonl")]
    (tmp_path / "there.jsonl").write_text("{}")
    file = write_experiment(tmp_path / "x.yaml", tree)
    for command in ("check", "train", "sweep"):
        code = f"import sys; sys.argv = ['ftlib', {command!r}, {str(file)!r}, 'sweep.space.adapter.r=[2, 4]']\n"
        code += "from ftlib import cli\ntry: cli.main()\nexcept SystemExit as ended: assert ended.code == 2"
        assert not imported_by(code) & HEAVY
    status, output = ftlib("check", file)
    assert status == 2
    assert "data.train[1].path: no such file or folder" in output
    assert "Did you mean 'there.jsonl'?" in output
    tree["model"]["name_or_path"] = "./bse"
    status, output = ftlib("check", write_experiment(tmp_path / "x.yaml", tree))
    assert (status, "model.name_or_path: there is no './bse' here" in output) == (2, True)


def test_sweep_without_a_sweep_section(tree: dict[str, Any], tmp_path: Path) -> None:
    status, output = ftlib("sweep", write_experiment(tmp_path / "x.yaml", tree))
    assert status == 2
    assert "there is no sweep section" in output


@pytest.mark.parametrize("command", ["resume", "leaderboard"])
def test_no_such_run(command: str, tmp_path: Path) -> None:
    status, output = ftlib(command, tmp_path / "nothing")
    assert status == 2
    assert "is no run directory" in output


def test_unknown_commands_and_options() -> None:
    assert ftlib("swep")[0] == 2
    assert ftlib("sweep")[0] == 2
    assert ftlib("serve", "nobody@x")[0] == 2


def test_promote_rollback_and_registry(swept: tuple[Run, str]) -> None:
    run, _ = swept
    status, output = ftlib("promote", run.path, "--as", "doors")
    assert status == 0, output
    assert "doors@1" in output
    assert ftlib("promote", run.path, "001", "--as", "doors")[0] == 0
    status, output = ftlib("registry")
    assert re.search(r"doors@2\s+yes", output)
    status, output = ftlib("rollback", "doors")
    assert (status, output) == (0, "doors is now doors@1\n")
    status, output = ftlib("rollback", "doors")
    assert status == 2
    status, output = ftlib("promote", run.path, "--as", "doors", "--canary", "0.1")
    assert "doors is now doors@1, and doors@3 for 0.1 of its requests" in output
    status, output = ftlib("registry")
    assert re.search(r"doors@1\s+yes", output)
    assert re.search(r"doors@3\s+canary 0.1", output)
    assert ftlib("canary", "doors", "0.25")[1] == "doors is now doors@1, and doors@3 for 0.25 of its requests\n"
    assert ftlib("canary", "doors", "1") == (0, "doors is now doors@3\n")
    assert ftlib("canary", "doors", "1")[0] == 2
    status, output = ftlib("promote", run.path, "01", "--as", "doors")
    assert status == 2
    assert "Did you mean '001'?" in output
    status, output = ftlib("promote", run.path, "--as", "../doors")
    assert status == 2


def test_a_run_that_has_ended_is_told_from_its_directory(swept: tuple[Run, str]) -> None:
    """Without Ray, without torch: in a second."""
    run, printed = swept
    events = len(run.events())
    code = f"import sys; sys.argv = ['ftlib', 'resume', {str(run.path)!r}]\nfrom ftlib import cli\n"
    assert not imported_by(code + "try: cli.main()\nexcept SystemExit as ended: assert not ended.code") & HEAVY
    status, output = ftlib("resume", run.path)
    assert status == 0, output
    assert output.splitlines()[-1] == printed.splitlines()[-1]
    assert len(run.events()) == events


def test_leaderboard_of_a_run(swept: tuple[Run, str]) -> None:
    run, _ = swept
    status, output = ftlib("leaderboard", run.path, "--csv")
    assert status == 0
    assert output.splitlines() == (run.path / "leaderboard.csv").read_text().splitlines()
    assert "ftlib promote " in (run.path / "report.html").read_text(encoding="utf-8")  # written at the end of the sweep


def test_a_defect_is_one_sentence_and_a_traceback_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftlib.config import Experiment

    def broken(*args: Any) -> None:
        raise RuntimeError("the moon is full")

    monkeypatch.setattr(Experiment, "load", broken)
    status, output = ftlib("check", "x.yaml")
    assert status == 1
    assert "RuntimeError: the moon is full" in output
    assert "Traceback" not in output
    status, output = ftlib("--debug", "check", "x.yaml")
    assert status == 1
    assert "Traceback" in output


def test_a_registry_version_as_base(tree: dict[str, Any], tmp_path: Path, swept: tuple[Run, str]) -> None:
    run, _ = swept
    ftlib("promote", run.path, "--as", "adapter-only")
    tree["model"]["name_or_path"] = "registry:adapter-only"
    status, output = ftlib("check", write_experiment(tmp_path / "x.yaml", tree))
    assert status == 0, output
    assert "adapter-only@1 merged into" in output
    tree["model"]["name_or_path"] = "registry:adapter-onyl"
    status, output = ftlib("check", write_experiment(tmp_path / "x.yaml", tree))
    assert status == 2
    assert "adapter-only" in output


def test_training_without_held_out_rows_leaves_the_sweep_aside_and_is_promoted(
    tree: dict[str, Any], tmp_path: Path, ray_local: None
) -> None:
    tree["data"] |= {"eval_split": 0, "train": [{"path": tree["data"]["train"], "weight": 0.5}]}
    tree["sweep"] = {"space": {"adapter.r": [2, 4]}}
    file = write_experiment(tmp_path / "x.yaml", tree)
    status, output = ftlib("sweep", file)
    assert status == 2
    assert "a sweep compares its trials on rows that are held out, and 0 holds none out" in output
    status, output = ftlib("train", file)
    assert status == 0, output
    assert "40 rows for training, 0 for evaluation" in output
    assert "warning" not in output
    run = only_run(tree["storage"])
    assert run.resolved["objective"] == ["train_loss", "min"]
    status, output = ftlib("promote", run.path, "--as", "unmeasured")
    assert status == 0, output
    assert "built-in texts" in output
    assert re.search(r"unmeasured@1\s+yes", ftlib("registry")[1])
