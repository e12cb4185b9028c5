"""Packs under Ray Tune: the conductor is Tune's, and what it decides is what happens."""

from __future__ import annotations

import os
import signal
import threading
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftlib.files.json_files import read_json
from ftlib.run.directory import Run
from ftlib.run.layout import PACK_FILE
from ftlib.run.leaderboard import leaderboard
from ftlib.sweeps import even_out, pack_host, pack_plan
from ftlib.sweeps.pack_host import Host
from ftlib.sweeps.pack_hosts import Hosts, OpenHost
from ftlib.sweeps.pack_plan import _found_before
from tests.conftest import foreign, ftlib, only_run, rows, write_experiment, write_jsonl
from tests.pack.conftest import assert_same_bits, left_behind
from tests.sweeps.test_sweep import has_ended, one_killed, start, wait_for


def swept(tree: dict[str, Any], folder: Path, *overrides: str) -> tuple[Any, str]:
    tree = {**tree, "storage": str(folder / "runs")}
    status, output = ftlib("sweep", write_experiment(folder / "sweep.yaml", tree), *overrides)
    assert status == 0, output
    return only_run(folder / "runs"), output


@pytest.fixture
def sweep(tree: dict[str, Any], ray_local: None) -> dict[str, Any]:
    tree["train"].update(num_train_epochs=3, logging_steps=4, learning_rate=1e-2)
    tree["sweep"] = {
        "space": {
            "adapter.r": [2, 4],
            "train.learning_rate": [1e-3, 1e-2],
            "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2]},
        },
        "search": {"type": "grid"},
        "scheduler": {"type": "none"},
    }
    return tree


def test_a_packed_sweep_has_the_leaderboard_of_the_same_sweep_one_by_one(
    sweep: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two hosts of one thread, as a longer sweep would be."""
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e-6)
    sweep["train"]["num_train_epochs"] = 2
    packed, output = swept(sweep, tmp_path / "packed")
    assert "pack width" in output
    assert ", 2 of them" in output
    assert read_json(packed.path / PACK_FILE)["found"]["threads"] == 1
    isolation = read_json(packed.path / PACK_FILE)["isolation"]
    assert (isolation["promise"], isolation["off"]) == ("bits", 0.0)
    assert "pack: a trial is the same bits" in output
    one_by_one = ("sweep.pack=off", "sweep.max_concurrent_trials=1", "sweep.baseline=false")
    alone, _ = swept(sweep, tmp_path / "alone", *one_by_one)
    assert any(event["event"] == "packed" for event in packed.events())
    assert not any(event["event"] == "packed" for event in alone.events())
    assert of_trials(alone) == ["trial_started", "trial_finished"] * 8
    ours, theirs = leaderboard(packed), leaderboard(alone)
    assert len(ours.rows) == len(theirs.rows) == 8
    by_point = {str(sorted(row.params.items())): row for row in theirs.rows}
    for row in ours.rows:
        other = by_point[str(sorted(row.params.items()))]
        assert row.state == other.state == "finished"
        assert row.value == pytest.approx(other.value, rel=1e-4)
    assert ours.best.params == theirs.best.params


def long(tree: dict[str, Any], epochs: int = 16) -> dict[str, Any]:
    """Trials long enough to be interrupted, with a checkpoint each epoch."""
    tree["train"].update(num_train_epochs=epochs, eval_strategy="steps", eval_steps=8)
    tree["adapter"]["lora_dropout"] = 0.1
    tree["sweep"] = {
        "space": {"adapter.r": [2, 4], "train.learning_rate": [1e-3, 1e-2]},
        "search": {"type": "grid"},
        "scheduler": {"type": "none"},
        "baseline": False,
        "pack": 2,
        "max_concurrent_trials": None,
        "eval_rows": 5,
    }
    return tree


@pytest.fixture(scope="module")
def uninterrupted(base: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Run:
    """What the sweep of `long` leaves when nothing happens to it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    tree = {
        "name": "colours",
        "model": {"name_or_path": str(base)},
        "data": {"train": str(data_file), "max_length": 64, "eval_split": 0.2},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 4, "lora_alpha": 8},
        "train": {"learning_rate": 1e-2, "per_device_train_batch_size": 8, "logging_steps": 2},
        "track": {"wandb": None, "tensorboard": False},
    }
    return swept(long(tree), folder)[0]


def assert_like(run: Run, other: Run) -> None:
    """The same points left the same bits, compared on the same part of the rows, and at their end on all."""
    theirs = {str(sorted(trial.params.items())): trial for trial in other.trials()}
    assert len(run.trials()) == len(theirs) == 4
    for trial in run.trials():
        assert trial.state == "finished"
        same = theirs[str(sorted(trial.params.items()))]
        assert_same_bits(left_behind(trial), left_behind(same))
        ours, whole = trial.on_all_rows, same.on_all_rows
        assert ours is not None
        assert whole is not None
        assert ours["eval_loss_parts"] == whole["eval_loss_parts"]
        assert len(trial.evaluations("eval_loss")[0]["eval_loss_parts"]) == 5 < len(whole["eval_loss_parts"])
    assert run.resolved["eval_part"] == other.resolved["eval_part"]


def test_kill_9_and_resume_leaves_the_same_bits(tree: dict[str, Any], tmp_path: Path, uninterrupted: Run) -> None:
    """Though the data has other rows by then: the cache has kept those that the run began with."""
    data = tmp_path / "colours.jsonl"
    data.write_bytes(Path(tree["data"]["train"]).read_bytes())
    tree["data"]["train"] = str(data)
    process = start(long(tree), tmp_path, **tree["sweep"])
    run = wait_for(tree["storage"], 1, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    write_jsonl(data, rows(40))
    before = {trial.id: trial.metrics_path.read_text() for trial in run.trials() if trial.state == "finished"}
    assert 0 < len(before) < 4
    status, output = ftlib("resume", run.path)
    assert status == 0, output
    assert (
        "the data gives other rows than when the run began: the run goes on with the rows that it began with" in output
    )
    for name, metrics in before.items():
        assert run.trial(name).metrics_path.read_text() == metrics
    assert_like(run, uninterrupted)


def test_ctrl_c_and_resume_leaves_the_same_bits(tree: dict[str, Any], tmp_path: Path, uninterrupted: Run) -> None:
    process = start(long(tree), tmp_path, **tree["sweep"])
    run = wait_for(tree["storage"], 1, process, lambda trial: trial.checkpoint is not None and not has_ended(trial))
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert f"ftlib resume {run.path}" in output
    assert foreign(output) == []
    states = {trial.state for trial in run.trials()}
    assert "preempted" in states  # it has saved where it stood
    assert "running" not in states
    status, output = ftlib("resume", run.path)
    assert status == 0, output
    repeats = [event["repeats"] for event in run.events() if event["event"] == "trial_continued"]
    assert repeats
    assert not any(repeats)
    assert_like(run, uninterrupted)


def test_a_killed_host_costs_no_trial_and_no_bit(tree: dict[str, Any], tmp_path: Path, uninterrupted: Run) -> None:
    with one_killed(tmp_path / "runs") as killed:
        run, output = swept(long(tree), tmp_path)
    assert killed, output
    assert any(event["event"] == "trial_started" and event["failures"] for event in run.events())
    assert {"host_lost", "trial_recovered"} <= {event["event"] for event in run.events()}
    assert_like(run, uninterrupted)


def test_a_trial_moves_to_an_idle_host_of_its_machine_and_leaves_the_same_bits(
    tree: dict[str, Any], tmp_path: Path, uninterrupted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts: the short trials are all in one, the long ones in the other."""

    emptiest, taken = Hosts.take, []

    def take(hosts: Hosts) -> OpenHost:
        taken.append(hosts)
        if len(taken) > 4:
            return emptiest(hosts)
        return min((host for host in hosts.open_hosts if host.free), key=lambda host: (host.free, host.number))

    monkeypatch.setattr(Hosts, "take", take)
    monkeypatch.setattr(pack_plan, "WORTH_SECONDS", 1e-6)
    monkeypatch.setattr(even_out, "WORTH_SECONDS", 0.0)
    tree = long(tree)
    tree["sweep"]["space"] = {"train.num_train_epochs": [1, 16], "adapter.r": [2, 4]}
    run, _ = swept(tree, tmp_path)
    moved = [event for event in run.events() if event["event"] == "trial_preempted"]
    assert [event["reason"] for event in moved] == [even_out.NOTHING_TO_DO]
    hosts = [event["host"] for event in run.events() if event.get("trial") == moved[0]["trial"] and "host" in event]
    assert len(set(hosts)) == 2
    theirs = {trial.params["adapter.r"]: trial for trial in uninterrupted.trials() if trial.id in ("001", "003")}
    for trial in run.trials():
        assert trial.state == "finished"
        if trial.params["train.num_train_epochs"] == 16:
            assert_same_bits(left_behind(trial), left_behind(theirs[trial.params["adapter.r"]]))


def test_asha_frees_slots_that_the_next_suggestions_take(sweep: dict[str, Any], tmp_path: Path) -> None:
    """And no more trials run at once than asked, though the pack has a slot more."""
    sweep["sweep"] = {
        "space": {"train.learning_rate": [1e-2, 1e-7, 1e-8, 1e-9, 2e-2, 1e-10, 3e-8, 5e-3]},
        "search": {"type": "grid"},
        "scheduler": {"type": "asha"},
        "baseline": False,
        "max_concurrent_trials": 2,
        "pack": 3,
    }
    run, _ = swept(sweep, tmp_path)
    states = [trial.state for trial in run.trials()]
    assert len(states) == 8
    assert states.count("stopped") >= 3
    assert "finished" in states
    stopped = next(trial for trial in run.trials() if trial.state == "stopped")
    assert stopped.metrics()[-1]["progress"] < 0.5
    assert stopped.weights is not None  # a stopped trial can still be promoted
    assert "by the scheduler" in stopped.status["reason"]
    steps = {"trial_started": 1, "trial_stopped": -1, "trial_finished": -1}
    at_once = list(accumulate(steps[event] for event in of_trials(run)))
    assert (max(at_once), at_once[-1]) == (2, 0)


def test_asha_calls_back_those_who_came_first_to_a_rung(sweep: dict[str, Any], tmp_path: Path) -> None:
    """All eight reach the first rung in one tick, and Tune hears of the worst first: each goes on until it is
    beaten."""
    rates = [1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-4, 1e-3, 1e-2]
    sweep["train"].update(num_train_epochs=12)
    sweep["sweep"] = {
        "space": {"train.learning_rate": rates},
        "search": {"type": "grid"},
        "scheduler": {"type": "asha"},
        "baseline": False,
        "pack": 8,
    }
    run, _ = swept(sweep, tmp_path)
    finished = {trial.params["train.learning_rate"] for trial in run.trials() if trial.state == "finished"}
    assert 1e-2 in finished
    assert len(finished) <= 3  # of the four that leave the first rung, two and one more leave the second
    stopped = [trial for trial in run.trials() if trial.state == "stopped"]
    assert len(stopped) == 8 - len(finished)
    assert all("by the scheduler" in trial.status["reason"] for trial in stopped)
    assert all(trial.weights is not None and not (trial.path / "error.txt").exists() for trial in stopped)


def of_trials(run: Run) -> list[str]:
    return [event["event"] for event in run.events() if "trial" in event]


@pytest.mark.parametrize("synch", [False, True])
def test_pbt_copies_a_slot(sweep: dict[str, Any], tmp_path: Path, synch: bool) -> None:
    sweep["train"].update(num_train_epochs=4, lr_scheduler_type="constant")
    sweep["sweep"] = {
        "space": {"train.learning_rate": {"min": 1e-6, "max": 5e-2, "log": True}},
        "search": {"type": "random"},
        "scheduler": {
            "type": "pbt",
            "checks": 4,
            "quantile_fraction": 0.5,
            "resample_probability": 0.0,
            "synch": synch,
        },
        "num_samples": 2,
        "baseline": False,
        "pack": 2,
    }
    run, _ = swept(sweep, tmp_path)
    started = [event["trial"] for event in run.events() if event["event"] == "trial_started"]
    assert len(started) > 2  # an exploit starts a trial again
    losses = [[row["eval_loss"] for row in trial.evaluations("eval_loss")] for trial in run.trials()]
    assert abs(losses[0][0] - losses[1][0]) > 0.02  # at the first check one is ahead
    assert abs(losses[0][-1] - losses[1][-1]) < 0.01  # the other has its weights in the end
    rates = [trial.params["train.learning_rate"] for trial in run.trials()]
    assert min(rates) / max(rates) in (pytest.approx(0.8), pytest.approx(1 / 1.2))


def test_a_sweep_that_cannot_be_packed_is_refused_where_a_pack_was_asked_for(
    sweep: dict[str, Any], tmp_path: Path
) -> None:
    """Where none was: test_a_base_that_cannot_be_packed_is_said, and tests/sweeps/test_pack_plan.py."""
    sweep["adapter"]["init_lora_weights"] = "olora"
    sweep["sweep"]["pack"] = 4
    status, output = ftlib("sweep", write_experiment(tmp_path / "olora.yaml", sweep))
    assert status == 2
    assert "sweep.pack: slots begin with a B of zeros: use init_lora_weights: true or gaussian" in output
    assert not Path(sweep["storage"]).exists()


def test_a_base_that_cannot_be_packed_is_said(
    sweep: dict[str, Any], base: Path, tmp_path: Path, ray_local: None
) -> None:
    """GPT-2 drops weights of its attention."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    sweep["model"]["name_or_path"] = str(tmp_path / "gpt2")
    sweep["train"]["num_train_epochs"] = 1
    sweep["sweep"].update(space={"train.learning_rate": [1e-3]}, baseline=False)
    run, output = swept(sweep, tmp_path)
    assert "trials are trained one by one: GPT2LMHeadModel drops weights of its attention: set model.config" in output
    assert [trial.state for trial in run.trials()] == ["finished"]
    assert any(event["event"] == "not_packed" for event in run.events())
    status, output = ftlib("sweep", write_experiment(tmp_path / "asked.yaml", sweep), "sweep.pack=2")
    assert status == 1
    assert "use sweep.pack: off" in output


def test_a_driver_that_goes_on_knows_what_the_steps_have_measured(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x", "", {})
    found = {"width": 4, "of": {"threads": 2}}
    assert _found_before(run, {}) is None
    assert _found_before(run, {"found": found}) == found
    run.log_event("pack_paced", width=8, rates={"8": 2.0}, of={"threads": 1}, sentence="on another machine")
    assert _found_before(run, {"found": found}) == found
    run.log_event("pack_paced", width=2, rates={"2": 1.0}, of={"threads": 2}, sentence="here")
    assert _found_before(run, {"found": found}) == {**found, "width": 2, "rates": {"2": 1.0}}


def test_trials_that_come_to_an_empty_pack_begin_in_one_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_host, "NEXT_SECONDS", 60.0)
    host, done = Host(), []
    host.pack = SimpleNamespace(members={}, base=SimpleNamespace(bank=SimpleNamespace(slots=2)))
    host.requests.put(lambda: done.append("first"))
    later = threading.Timer(0.05, host.requests.put, [lambda: done.append("second")])
    later.start()
    host._answer_requests()
    assert done == ["first", "second"]


def test_a_hosts_threads_wait_without_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    Host()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_trial_that_was_called_back_before_it_asked_for_its_next_report_hears_so() -> None:
    """Tune sends `train` and, at another trial's word, `stop`: the host's threads may take them in either order."""
    assert Host().next_report("000") == {"left": True}
