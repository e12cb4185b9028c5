"""Every experiment file in the repository is one, and its own `smoke:` section makes it run here."""

from pathlib import Path

import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError

from .conftest import ftlib, only_run

ROOT = Path(__file__).parents[1]
PIPELINES = ROOT / "experiments" / "pipelines"  # tests/pipelines/test_experiments.py
FILES = sorted(path for path in (ROOT / "experiments").rglob("*.yaml") if PIPELINES not in path.parents)
# These are small enough as they are: their runs make what the smoke sections start from.
LOCAL = {
    "quickstart.yaml",
    "pretrain.yaml in pretrain_tiny",
    "sweep.yaml in pretrain_tiny",
    "distill_quickstart.yaml",
    "distill_teacher.yaml",
}


def called(path: Path) -> str:
    return path.name if path.parent.name == "experiments" else f"{path.name} in {path.parent.name}"


SMOKED = [path for path in FILES if called(path) not in LOCAL]


def test_there_are_some() -> None:
    assert {called(path) for path in FILES} >= LOCAL
    assert {"sft_lora.yaml", "dpo.yaml", "grpo.yaml", "sft_full_fsdp.yaml"} <= {path.name for path in SMOKED}


@pytest.mark.parametrize("path", FILES, ids=called)
def test_it_is_an_experiment(path: Path) -> None:
    experiment = Experiment.load(path)
    text = path.read_text()
    assert text.startswith("# ")  # says what it is for
    assert not experiment.scale.use_gpu or "# Memory" in text  # and how large a GPU it needs
    if experiment.sweep is not None:
        assert experiment.sweep.number_of_trials >= 2


@pytest.mark.parametrize("path", SMOKED, ids=called)
def test_its_smoke_needs_no_gpu_and_nothing_from_the_hub(path: Path) -> None:
    experiment = Experiment.load(path, smoke=True)
    assert experiment.method.type == Experiment.load(path).method.type
    assert not experiment.scale.use_gpu
    assert experiment.scale.num_workers <= 2
    assert experiment.model.name_or_path == "registry:quickstart-base"
    sources = [
        *(section.train for _, _, section in experiment.data.sources),
        experiment.data.replay.train if experiment.data.replay else None,
    ]
    assert all((ROOT / source).is_file() for source in sources if source)
    assert not experiment.method.trains or (experiment.train.max_steps or 99) <= 4


def test_smoke_is_set_before_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\nmodel: {name_or_path: large}\ndata: {train: x.jsonl}\nmethod: {type: sft}\n"
        "smoke: {model.name_or_path: small, train.max_steps: 4}\n"
    )
    assert Experiment.load(path).model.name_or_path == "large"
    smoked = Experiment.load(path, ["train.max_steps=2"], smoke=True)
    assert (smoked.model.name_or_path, smoked.train.max_steps) == ("small", 2)
    assert "smoke" not in smoked.to_dict()
    path.write_text(path.read_text().split("smoke")[0])
    with pytest.raises(ConfigError, match="there is none"):
        Experiment.load(path, smoke=True)


def smoke(path: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> str:
    """Runs a file with --smoke through the command line, the quickstart's model replaced by the tests' own."""
    monkeypatch.chdir(ROOT)
    experiment = Experiment.load(path, smoke=True)
    given = [f"model.name_or_path={base}", f"storage={tmp_path / 'runs'}", *overrides]
    if experiment.method.type == "distill":
        given.append(f"method.teacher={base}")
    if experiment.method.type == "merge":
        given += [f"method.models.{name}={base}" for name in experiment.method.models]
    status, output = ftlib("sweep" if experiment.sweep else "train", path, "--smoke", *given)
    assert status == 0, output
    run = only_run(tmp_path / "runs")
    assert all(trial.state in ("finished", "stopped") for trial in run.trials()), output
    assert "# --smoke" in (run.path / "experiment.yaml").read_text()
    return output


def test_a_smoke_runs(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None) -> None:
    smoke(ROOT / "experiments" / "dpo.yaml", base, tmp_path, monkeypatch)


@pytest.mark.matrix
@pytest.mark.parametrize("path", SMOKED, ids=called)
def test_every_smoke_runs(
    path: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    smoke(path, base, tmp_path, monkeypatch)


@pytest.mark.matrix
def test_a_promoted_reward_model_rewards(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_local: None
) -> None:
    """reward.yaml, promote, rloo.yaml: the two experiments of RLHF as their headers say."""
    smoke(ROOT / "experiments" / "reward.yaml", base, tmp_path / "reward", monkeypatch)
    assert ftlib("promote", tmp_path / "reward" / "runs" / "reward", "--as", "reward")[0] == 0
    rewards = "method.rewards=[{function: reward_model, arguments: {model: 'registry:reward'}}]"
    smoke(ROOT / "experiments" / "rloo.yaml", base, tmp_path / "rloo", monkeypatch, rewards)


def test_the_small_rows_are_what_their_readme_says() -> None:
    folder = ROOT / "experiments" / "data"
    told = folder.joinpath("README.md").read_text()
    for path in folder.glob("*.jsonl"):
        assert len(path.read_text().splitlines()) == 48
        assert f"| {path.name} |" in told
