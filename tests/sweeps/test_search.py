import math
import os
from pathlib import Path
from typing import Any

import optuna
import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.run.context import Rungs
from ftlib.sweeps.rungs import rungs_for, why_never_stopped
from ftlib.sweeps.schedulers import make_scheduler
from ftlib.sweeps.search import FAILED, make_search

SPACE: dict[str, Any] = {
    "adapter.r": [4, 8],
    "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2]},
    "train.learning_rate": {"min": 1e-5, "max": 1e-3, "log": True},
}


def experiment(tree: dict[str, Any], space: dict[str, Any] | None = None, **sweep: Any) -> Experiment:
    return Experiment.parse({**tree, "sweep": {"space": space or SPACE, **sweep}})


def study(search: Any) -> optuna.Study:
    return search._ot_study


def test_every_kind_of_dimension(tree: dict[str, Any]) -> None:
    space = {
        **SPACE,
        "train.weight_decay": {"min": 0.0, "max": 0.3, "q": 0.1},
        "train.per_device_train_batch_size": {"min": 4, "max": 16, "q": 4},
        "train.gradient_accumulation_steps": {"min": 16, "max": 64, "log": True},
    }
    search = make_search(experiment(tree, space), "run")
    points = [search.suggest(str(number)) or {} for number in range(30)]
    for point in points:
        assert point["adapter.r"] in (4, 8)
        assert point["adapter.lora_alpha"] in (1, 2)
        assert 1e-5 <= point["train.learning_rate"] <= 1e-3
        assert round(point["train.weight_decay"] * 10) == pytest.approx(point["train.weight_decay"] * 10)
        assert point["train.per_device_train_batch_size"] in (4, 8, 12, 16)
        assert isinstance(point["train.gradient_accumulation_steps"], int)
    below = sum(point["train.learning_rate"] < 1e-4 for point in points)
    assert 6 <= below <= 24  # log: half of the draws lie in the lower decade


@pytest.mark.parametrize("kind", ["optuna", "random"])
def test_the_same_seed_proposes_the_same_points(kind: str, tree: dict[str, Any]) -> None:
    def points(seed: int) -> list[Any]:
        search = make_search(experiment(tree, search={"type": kind, "seed": seed}), "run")
        return [search.suggest(str(number)) for number in range(4)]

    assert points(1) == points(1)
    assert points(1) != points(2)


def test_a_grid_is_every_combination_once(tree: dict[str, Any]) -> None:
    space = {"adapter.r": [4, 8], "train.learning_rate": [1e-4, 1e-3, 1e-2]}
    grid = experiment(tree, space, search={"type": "grid"})
    assert grid.sweep is not None
    assert grid.sweep.number_of_trials == 6
    search = make_search(grid, "run")
    proposed = [search.suggest(str(number)) for number in range(6)]
    assert all(proposed.count(point) == 1 for point in grid.sweep.grid_points())


def test_failed_and_nan_trials_are_told_as_failed(tree: dict[str, Any]) -> None:
    search = make_search(experiment(tree), "run")
    for name in ("good", "nan", "failure", "crash", "nothing"):
        search.suggest(name)
    search.on_trial_result("good", {"eval_loss": 1.0, "step": 1})
    search.on_trial_result("good", {"no metric": 1.0})  # Ray's own raises KeyError here
    search.on_trial_complete("good", {"eval_loss": 0.5, "step": 2})
    search.on_trial_complete("nan", {"eval_loss": math.nan})
    search.on_trial_complete("failure", {FAILED: "out of memory"})
    search.on_trial_complete("crash", error=True)
    search.on_trial_complete("nothing", {})
    states = [trial.state.name for trial in study(search).trials]
    assert states == ["COMPLETE", "FAIL", "FAIL", "FAIL", "FAIL"]
    assert study(search).trials[0].value == 0.5
    assert study(search).trials[0].intermediate_values == {1: 1.0}


def test_a_restored_searcher_remembers_and_goes_on(tree: dict[str, Any], tmp_path: Path) -> None:
    def told(search: Any, names: range) -> list[Any]:
        points = []
        for number in names:
            points.append(search.suggest(str(number)))
            search.on_trial_complete(str(number), {"eval_loss": points[-1]["train.learning_rate"], "step": 1})
        return points

    whole = make_search(experiment(tree), "run")
    told(whole, range(12))
    cut = make_search(experiment(tree), "run")
    told(cut, range(9))
    cut.save(str(tmp_path / "state"))
    again = make_search(experiment(tree), "run")
    again.restore(str(tmp_path / "state"))
    assert len(study(again).trials) == 9
    told(again, range(9, 12))
    assert [trial.params for trial in study(again).trials] == [trial.params for trial in study(whole).trials]


def _postgres() -> str | None:
    return os.environ.get("FTLIB_TEST_POSTGRES")


@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_a_database_ahead_of_the_snapshot_is_brought_in_line(
    storage: str, tree: dict[str, Any], tmp_path: Path
) -> None:
    """Ray's searcher raises UpdateFinishedTrialError here and takes the sweep down with it."""
    url = f"sqlite:///{tmp_path}/study.db" if storage == "sqlite" else _postgres()
    if url is None:
        pytest.skip("no PostgreSQL: set FTLIB_TEST_POSTGRES to the URL of an empty database")
    if storage == "postgres":
        pytest.importorskip("psycopg", reason="no PostgreSQL: pip install 'ftlib[postgres]'")
    tree["name"] = f"study-{os.getpid()}"
    shared = experiment(tree, search={"type": "optuna", "storage": url})
    search = make_search(shared, "run")
    search.suggest("a")
    search.save(str(tmp_path / "state"))  # the snapshot: a is running, b unknown
    search.suggest("b")
    search.on_trial_complete("a", {"eval_loss": 1.0, "step": 3})

    again = make_search(shared, "run")
    again.restore(str(tmp_path / "state"))
    again.on_trial_result("a", {"eval_loss": 1.0, "step": 3})
    again.on_trial_complete("a", {"eval_loss": 1.0, "step": 3})
    assert again.suggest("c")
    states = [trial.state.name for trial in study(again).trials]
    assert states == ["COMPLETE", "FAIL", "RUNNING"]  # b will never be heard of: it does not stay RUNNING


def test_two_sweeps_share_a_study_and_leave_each_other_alone(tree: dict[str, Any], tmp_path: Path) -> None:
    shared = experiment(tree, search={"type": "optuna", "storage": f"sqlite:///{tmp_path}/study.db"})
    one, other = make_search(shared, "one"), make_search(shared, "other")
    one.suggest("a")
    other.suggest("b")
    one.save(str(tmp_path / "state"))
    restored = make_search(shared, "one")
    restored.restore(str(tmp_path / "state"))
    assert [trial.state.name for trial in study(restored).trials] == ["RUNNING", "RUNNING"]


def test_a_database_that_cannot_be_opened_is_named_without_its_password(tree: dict[str, Any]) -> None:
    url = "postgresql://me:secret@127.0.0.1:1/none"
    with pytest.raises(ConfigError, match="sweep.search.storage") as raised:
        make_search(experiment(tree, search={"type": "optuna", "storage": url}), "run")
    assert "secret" not in str(raised.value)


def test_rungs_begin_at_a_share_of_the_budget_and_grow_by_the_factor() -> None:
    from ftlib.config import PBT, Asha, Median

    assert rungs_for(Asha(type="asha"), tokens=9000, steps=90) == Rungs("tokens", (750, 2250))
    assert rungs_for(Asha(type="asha", rungs=9), tokens=9000, steps=90) == Rungs("tokens", (750, 2250, 6750))
    steps = Asha(type="asha", unit="steps", first_rung=1 / 9, rungs=1)
    assert rungs_for(steps, tokens=9000, steps=90) == Rungs("steps", (10,))
    assert rungs_for(Asha(type="asha", unit="steps"), tokens=900, steps=5) == Rungs("steps", (1,))  # the first is at 0
    assert rungs_for(Median(type="median", checks=4), tokens=8000, steps=80) == Rungs("tokens", (2000, 4000, 6000))
    assert rungs_for(PBT(type="pbt", checks=2), tokens=8000, steps=80) == Rungs("tokens", (4000,))
    assert rungs_for(None, tokens=1, steps=1) == Rungs()
    with pytest.raises(ConfigError, match="too few to compare"):
        rungs_for(Asha(type="asha", unit="steps", first_rung=1 / 12), tokens=100, steps=2)


def test_by_default_no_rung_is_before_every_trial_has_made_twenty_steps_or_an_epoch() -> None:
    from ftlib.config import Asha

    asha, steps = Asha(type="asha"), Asha(type="asha", unit="steps")
    assert rungs_for(asha, tokens=9000, steps=90, grace=(2000, 20)) == Rungs("tokens", (2000, 2250))
    assert rungs_for(asha, tokens=9000, steps=90, grace=(3000, 30)) == Rungs("tokens", (3000,))
    assert rungs_for(steps, tokens=9000, steps=900, grace=(2000, 20)) == Rungs("steps", (75, 225))
    assert rungs_for(steps, tokens=900, steps=10, grace=(900, 10)) == Rungs("steps")  # one epoch: nobody is stopped
    asked = Asha(type="asha", unit="steps", first_rung=0.1, rungs=1)
    assert rungs_for(asked, tokens=900, steps=100, grace=(900, 20)) == Rungs("steps", (10,))  # as the file says


def test_the_grace_is_that_of_the_largest_batch(tree: dict[str, Any], data_file: Any) -> None:
    from types import SimpleNamespace

    from ftlib.training.estimate import budget, grace

    report: Any = SimpleNamespace(train_rows=960, train_tokens=9600, eval_rows=40)
    made = experiment(tree, {"train.per_device_train_batch_size": [4, 8], "train.gradient_accumulation_steps": [1, 2]})
    assert grace(made, report) == (3200, 20)  # 20 steps of 16 rows of 10 tokens
    assert budget(made, report) == (9600, 60)
    assert why_never_stopped(made, report) is None
    report.eval_rows = 9
    assert "9 evaluation rows are too few to tell trials apart" in (why_never_stopped(made, report) or "")
    report.eval_rows, report.train_rows, report.train_tokens = 40, 80, 800
    assert "none is before 20 steps or an epoch" in (why_never_stopped(made, report) or "")
    whole = experiment(tree, {"adapter.r": [2, 4]}, search={"type": "grid"})
    assert why_never_stopped(whole, report) is None


def test_asha_stops_the_worse_half_at_a_rung(tree: dict[str, Any]) -> None:
    from ray.tune.experiment import Trial

    scheduler = make_scheduler(experiment(tree), Rungs("tokens", (100, 300)))
    scheduler.set_search_properties("eval_loss", "min")
    decisions = []
    for number in range(6):
        trial = Trial("name", trial_id=str(number), stub=True)
        scheduler.on_trial_add(None, trial)
        result = {"tokens": 100 + number, "eval_loss": float(number)}
        decisions.append(scheduler.on_trial_result(None, trial, result))
    assert decisions[0] == "CONTINUE"
    assert decisions[-1] == "STOP"


def test_pbt_mutates_train_values_inside_their_ranges(tree: dict[str, Any]) -> None:
    space = {"train.learning_rate": {"min": 1e-4, "max": 1e-3, "log": True}, "adapter.r": [4, 8]}
    point = experiment(tree, space, search={"type": "random"}, scheduler={"type": "pbt"})
    scheduler = make_scheduler(point, Rungs("tokens", (100, 200)))
    assert list(scheduler._hyperparam_mutations) == ["train.learning_rate"]
    draws = [scheduler._hyperparam_mutations["train.learning_rate"]() for _ in range(50)]
    assert all(1e-4 <= draw <= 1e-3 for draw in draws)
    assert scheduler._custom_explore_fn({"train.learning_rate": 5.0, "adapter.r": 8}) == {
        "train.learning_rate": 1e-3,
        "adapter.r": 8,
    }


def test_a_forgotten_proposal_is_taken_out_of_the_grid_and_a_clone_is_not(tree: dict[str, Any]) -> None:
    search = make_search(experiment(tree, {"adapter.r": [2, 4, 8]}, search={"type": "grid"}), "run")
    search.adopt("late", {"adapter.r": 4}, proposed=True)
    search.adopt("clone", {"adapter.r": 8, "train.learning_rate": 1e-3})
    search.adopt("outside", {"adapter.r": 99})
    assert [search.suggest(name) for name in ("a", "b")] == [{"adapter.r": 2}, {"adapter.r": 8}]
    for name in ("late", "clone", "outside", "a", "b"):
        search.on_trial_complete(name, {"eval_loss": 1.0})
    found = [(trial.params["adapter.r"], trial.state.name) for trial in study(search).trials]
    assert sorted(found) == [(2, "COMPLETE"), (4, "COMPLETE"), (8, "COMPLETE"), (8, "COMPLETE")]


def test_a_study_in_the_run_directory_can_be_read_while_the_sweep_runs(tree: dict[str, Any], tmp_path: Path) -> None:
    """What optuna-dashboard does: it opens the file by its URL and reads."""
    search = make_search(experiment(tree, search={"type": "optuna", "storage": "run"}), "run", tmp_path)
    search.suggest("a")
    search.suggest("b")
    search.on_trial_complete("a", {"eval_loss": 0.5})
    seen = optuna.load_study(study_name=tree["name"], storage=f"sqlite:///{tmp_path}/study.db")
    assert [(trial.state.name, trial.values) for trial in seen.trials] == [("COMPLETE", [0.5]), ("RUNNING", None)]


def test_a_key_of_a_variant_is_drawn_only_in_it(tree: dict[str, Any]) -> None:
    space = {"adapter": [{"type": "lora", "r": [4, 8]}, {"type": "ia3"}], "train.learning_rate": [1e-3, 1e-2]}
    made = experiment(tree, space, num_samples=12)
    search = make_search(made, "run")
    for number in range(12):
        point = search.suggest(str(number)) or {}
        inner = {"adapter.lora.r"} if point["adapter"] == "lora" else set()
        assert set(point) == {"adapter", "train.learning_rate"} | inner
        search.on_trial_complete(str(number), {"eval_loss": 1.0 / (1 + number)})
    search.adopt("by hand", {"adapter": "lora", "adapter.lora.r": 8, "train.learning_rate": 1e-2})
    assert study(search).trials[-1].params["adapter.lora.r"] == 8


def test_several_objectives_and_bounds_reach_the_study(tree: dict[str, Any]) -> None:
    made = experiment(
        tree,
        metric=["eval_mean_token_accuracy", "trainable_parameters"],
        mode=["max", "min"],
        constraints={"eval_loss": "<= 2"},
        search={"type": "optuna", "sampler": "nsgaii"},
    )
    search = make_search(made, "run")
    for name, loss in (("a", 1.0), ("b", 3.0), ("c", math.nan)):
        search.suggest(name)
        search.on_trial_result(name, {"eval_mean_token_accuracy": 0.9, "trainable_parameters": 10, "eval_loss": loss})
        last = {"eval_mean_token_accuracy": 0.5, "trainable_parameters": 10, "eval_loss": 0.1, "finished": True}
        search.on_trial_complete(name, last)  # its weights are not the ones that the trial keeps
    assert [trial.values for trial in study(search).trials] == [[0.9, 10], [0.9, 10], None]
    assert [trial.user_attrs.get("violations") for trial in study(search).trials] == [[-1.0], [1.0], None]
    assert [trial.number for trial in study(search).best_trials] == [0]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"metric": ["eval_loss", "size"]}, "sweep.metric names 'size', but there is: "),
        ({"metric": ["trainable_parameters", "eval_loss"]}, "name one of an evaluation first"),
        ({"metric": ["eval_loss", "latency_ms"]}, "latency_ms is how long a trial takes for an answer"),
        ({"metric": ["eval_loss", "eval_loss"]}, "metric names 'eval_loss' twice"),
        ({"metric": ["eval_loss", "seconds"], "mode": ["min"]}, "mode has 1 values for 2 metrics"),
        ({"metric": ["eval_loss", "seconds"], "mode": ["min", "max"]}, "seconds is better the lower it is"),
        ({"metric": ["eval_loss", "seconds"], "scheduler": {"type": "asha"}}, "scheduler 'asha' stops trials by one"),
        ({"constraints": {"eval_loss": "<= 2"}, "scheduler": {"type": "median"}}, "constraints are known at a trial's"),
        ({"constraints": {"eval_loss": "low"}}, "must be a bound such as"),
        ({"metric": ["eval_loss", "seconds"], "search": {"type": "optuna", "sampler": "cmaes"}}, "'cmaes' knows one"),
    ],
)
def test_what_does_not_go_with_several_objectives_is_said(
    sweep: dict[str, Any], said: str, tree: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(tree, **sweep)
