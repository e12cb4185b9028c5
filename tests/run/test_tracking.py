"""The trackers of a real sweep, read back from their own files."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment, TrackSection, Wandb
from ftlib.errors import ConfigError
from ftlib.files.json_files import append_row
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard
from ftlib.run.tracking import following, wandb_id, wandb_mode


def wandb_records(path: Path) -> list[Any]:
    """The records of a finished W&B run: its process writes the last of them just after `finish` has returned."""
    for _ in range(1000):
        records = _records(path)
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def _records(path: Path) -> list[Any]:
    """What is in a `.wandb` file: leveldb's log format (7-byte file header, 32 KiB blocks) around protobuf."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, chunks, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # the rest of a block that has no room for a header
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        chunks += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, or the last part
            records.append(Record.FromString(chunks))
            chunks = b""
    return records


def items(found: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in found}


def test_wandb_offline_files_agree_with_metrics_jsonl(swept: tuple[Run, str]) -> None:
    run, _ = swept
    seen = {}
    for path in run.path.glob("wandb/offline-run-*/*.wandb"):
        records = wandb_records(path)
        header = next(record.run for record in records if record.HasField("run"))
        config = {item.key: json.loads(item.value_json) for record in records for item in _config(record)}
        history = [items(record.history.item) for record in records if record.HasField("history")]
        summary: dict[str, Any] = {}
        for record in records:
            if record.HasField("summary"):
                summary |= items(record.summary.update)
        seen[header.run_id] = (header, config, history, summary)
    board = leaderboard(run)
    best = {row.trial: row.value for row in board.rows}
    for trial in run.trials():
        header, config, history, summary = seen.pop(wandb_id(run, trial))
        assert (header.run_group, header.display_name) == ("colours", f"try-{trial.id}")
        assert (list(header.tags), header.notes, header.job_type) == (["a", "b"], "a note", "trial")
        assert header.project == "tests"
        point = {path.rpartition(".")[2]: value for path, value in trial.params.items()}
        assert {key: value for key, value in config.items() if key in point} == point
        assert config["experiment"]["adapter"]["r"] == trial.params["adapter.r"]
        assert config["experiment"]["train"]["learning_rate"] == trial.params["train.learning_rate"]
        last = trial.evaluations("eval_loss")[-1]
        assert [row["eval/loss"] for row in history if "eval/loss" in row][-1] == last["eval_loss"]
        assert summary["eval/loss"] == {"min": best[trial.id]}  # W&B's best is the leaderboard's
        assert summary["objective"] == best[trial.id]
        assert summary["state"] == "finished"
        losses = [(row["_step"], row["train/loss"]) for row in history if "train/loss" in row]
        assert losses == [(row["step"], row["loss"]) for row in trial.metrics() if "loss" in row]
        assert all(row["train/global_step"] == row["_step"] for row in history)
        assert all(row["system/memory_gib"] > 0.05 for row in history if "train/loss" in row)
    header, _, _, summary = seen.pop(next(key for key, found in seen.items() if found[0].job_type == "sweep"))
    assert header.display_name == "try-sweep"
    assert (summary["winner"], summary["best"]) == (board.rows[0].trial, board.rows[0].value)
    base = run.trial("base")
    assert {key: found[0].job_type for key, found in seen.items()} == {wandb_id(run, base): "base"}


def _config(record: Any) -> Any:
    if record.HasField("run"):
        yield from record.run.config.update
    if record.HasField("config"):
        yield from record.config.update


def test_tensorboard_files_hold_the_same_numbers(swept: tuple[Run, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = swept
    for trial in run.trials():
        events = EventAccumulator(str(run.path / "tensorboard" / trial.id))
        events.Reload()
        held = [(event.step, event.value) for event in events.Scalars("eval/loss")]
        assert held == [(row["step"], pytest.approx(row["eval_loss"])) for row in trial.evaluations("eval_loss")]


@pytest.fixture
def run(tmp_path: Path, tree: dict[str, Any]) -> Run:
    run = Run.create(
        tmp_path, "x", "", {"experiment": Experiment.parse(tree).to_dict(), "objective": ["eval_loss", "min"]}
    )
    trial = run.trial("000")
    trial.path.mkdir()
    append_row(trial.metrics_path, {"step": 1, "loss": 1.0})
    return run


def test_a_tracker_that_fails_is_one_warning_and_no_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's directory cannot be written: a real failure of the real library."""
    import wandb  # noqa: F401  (it must not be its import that fails)

    (run.path / "wandb").write_text("a file where W&B wants its folder")
    monkeypatch.setenv("WANDB_DIR", str(run.path))
    monkeypatch.setattr("tempfile.tempdir", str(run.path / "nowhere"))
    warnings: list[str] = []
    with following(run, TrackSection(wandb=Wandb(mode="offline")), warnings.append, every=0.05):
        for step in range(2, 5):
            append_row(run.trial("000").metrics_path, {"step": step, "loss": 1.0})
        run.trial("000").set_state("finished")
    assert len(warnings) == 1
    assert warnings[0].startswith("wandb failed and is off for the rest of this run")
    assert "tracker_failed" in [event["event"] for event in run.events()]
    assert list((run.path / "tensorboard" / "000").iterdir())  # the other one went on


def test_an_unreachable_wandb_is_kept_offline(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    warnings: list[str] = []
    with following(run, TrackSection(tensorboard=False), warnings.append, every=0.05):
        run.trial("000").set_state("finished")
    assert len(warnings) == 1
    assert warnings[0].startswith("W&B cannot be reached")
    (kept,) = run.path.glob("wandb/offline-run-*/*.wandb")
    history = [items(record.history.item) for record in wandb_records(kept) if record.HasField("history")]
    assert [(row["_step"], row["train/loss"]) for row in history] == [(1, 1.0)]


def test_what_was_handed_over_is_not_handed_over_again(run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track = TrackSection(wandb=None)
    with following(run, track, lambda _: None):
        pass
    append_row(run.trial("000").metrics_path, {"step": 2, "loss": 2.0})
    with following(run, track, lambda _: None):  # a resume
        pass
    events = EventAccumulator(str(run.path / "tensorboard" / "000"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.0), (2, 2.0)]


def test_the_mode_follows_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode(Wandb()) == "offline"
    assert wandb_mode(Wandb(mode="disabled")) == "disabled"
    with pytest.raises(ConfigError, match="set WANDB_API_KEY"):
        wandb_mode(Wandb(mode="online"))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_mode(Wandb()) == "online"


def test_a_resumed_trial_keeps_its_wandb_run(run: Run) -> None:
    assert wandb_id(run, run.trial("000")) == wandb_id(Run.open(run.path), run.trial("000"))
    assert wandb_id(run, run.trial("000")) != wandb_id(run, run.trial("001"))
