import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from ftlib.errors import FtlibError, InputError
from ftlib.files.atomic import replace_directory, settled, write_text
from ftlib.files.json_files import append_row, read_rows
from ftlib.run.directory import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "x", "name: x\n", {"experiment": {}})


def test_a_run_is_readable_files(run: Run) -> None:
    assert (run.path / "experiment.yaml").read_text() == "name: x\n"
    assert json.loads((run.path / "resolved.json").read_text()) == {"experiment": {}}
    assert [event["event"] for event in run.events()] == ["created"]
    assert Run.open(run.path) == run


def test_opening_what_is_no_run_names_the_nearest(run: Run) -> None:
    with pytest.raises(InputError, match=f"Did you mean '{run.name}'"):
        Run.open(str(run.path)[:-1] + "_")


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_rows(path) == [{"step": 1}]


def test_an_interrupted_replacement_leaves_the_old_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "checkpoint"
    for version in ("one", "two"):
        write_text(tmp_path / "staged" / "version", version)
        replace_directory(tmp_path / "staged", target)
    assert (target / "version").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]

    write_text(tmp_path / "staged" / "version", "three")
    real, calls = os.replace, []

    def killed_at_the_second(source: Path, goal: Path) -> None:
        calls.append(goal)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, goal)

    monkeypatch.setattr(os, "replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        replace_directory(tmp_path / "staged", target)
    monkeypatch.undo()
    found = settled(target)
    assert found is not None
    assert (found / "version").read_text() == "two"
    replace_directory(tmp_path / "staged", target)  # and the next one goes through
    assert (target / "version").read_text() == "three"


def test_metrics_after_the_checkpoint_are_forgotten(run: Run) -> None:
    trial = run.trial("000")
    trial.path.mkdir()
    for step in (1, 2, 3):
        append_row(trial.metrics_path, {"step": step})
    trial.forget_after(2)
    assert [row["step"] for row in trial.metrics()] == [1, 2]


def test_the_base_is_not_a_trial(run: Run) -> None:
    for name in ("base", "000", ".staging"):
        (run.path / "trials" / name).mkdir()
    assert [trial.id for trial in run.trials()] == ["000"]
    assert run.trial("000").state == "pending"


def _hold(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with Run(path).locked():
        ready.set()
        signal.pause()


def test_one_process_conducts_a_run_and_its_death_frees_it(run: Run) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(run.path, ready))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(FtlibError, match=f"being run by process {holder.pid}"), run.locked():
        pass
    holder.kill()
    holder.join()
    with run.locked():
        pass


def test_the_newest_run_of_a_name_is_found(tmp_path: Path) -> None:
    for stamp in ("20260101-000000-aaaa", "20260201-000000-0000", "20250101-000000-ffff"):
        write_text(tmp_path / f"x-{stamp}" / "resolved.json", "{}")
    write_text(tmp_path / "x-y-20260301-000000-0000" / "resolved.json", "{}")
    assert Run.open(tmp_path / "x").name == "x-20260201-000000-0000"
