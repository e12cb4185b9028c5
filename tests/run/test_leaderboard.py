import csv
import io
from pathlib import Path
from typing import Any

import pytest

from ftlib.files.atomic import write_json
from ftlib.files.json_files import append_row
from ftlib.run.directory import Run, State
from ftlib.run.leaderboard import leaderboard
from ftlib.run.leaderboard_text import to_csv, to_table


def make_run(tmp_path: Path, mode: str = "min") -> Run:
    return Run.create(tmp_path, "x", "", {"objective": ["eval_loss", mode]})


def add(run: Run, name: str, values: list[float], state: State = "finished", **params: Any) -> None:
    trial = run.trial(name)
    trial.path.mkdir()
    write_json(trial.path / "params.json", params)
    for step, value in enumerate(values, start=1):
        append_row(trial.metrics_path, {"step": step, "tokens": 100 * step, "seconds": 2.0 * step, "eval_loss": value})
    trial.set_state(state, "because" if state == "failed" else None)


@pytest.mark.parametrize(("mode", "order"), [("min", ["001", "000", "002"]), ("max", ["002", "000", "001"])])
def test_best_first_failed_last(mode: str, order: list[str], tmp_path: Path) -> None:
    run = make_run(tmp_path, mode)
    add(run, "base", [4.0])
    add(run, "000", [3.0, 2.0], r=4)
    add(run, "001", [1.0], "stopped", r=8)
    add(run, "002", [9.0, 8.0], r=16)
    add(run, "003", [0.1 if mode == "min" else 99.0], "failed", r=2)
    add(run, "004", [], "running")
    board = leaderboard(run)
    assert [row.trial for row in board.rows[:3]] == order
    assert [row.rank for row in board.rows] == [1, 2, 3, None, None]
    assert board.best is not None
    assert board.best.trial == order[0]
    assert board.base is not None
    assert board.base.value == 4.0


def test_what_trials_are_compared_with_is_said_or_left_out(tmp_path: Path) -> None:
    resolved = {"objective": ["eval_loss", "min"], "experiment": {"model": {"name_or_path": "/bases/small-chat"}}}
    run = Run.create(tmp_path, "x", "", resolved)
    add(run, "000", [3.0])
    board = leaderboard(run)
    assert board.footer is None
    assert "vs base" not in [column.header for column in to_table(board).columns]
    add(run, "base", [4.0])
    table = to_table(leaderboard(run))
    assert "vs base" in [column.header for column in table.columns]
    assert str(table.caption) == (
        "vs base: how much better than the base (small-chat) before any training, on the same rows, in percent"
    )


def test_a_trial_counts_with_its_best_evaluation_and_its_gain(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add(run, "base", [4.0])
    add(run, "000", [3.0, 5.0], r=4)
    row = leaderboard(run).rows[0]
    assert row.value == 3.0
    assert row.gain == pytest.approx(25.0)
    assert (row.step, row.tokens, row.seconds, row.tokens_per_second) == (2, 200, 4.0, 50.0)


@pytest.mark.parametrize(
    ("metric", "mode", "base", "value", "said"),
    [
        ("eval_loss", "min", 4.0, 3.0, "+25.0 %"),
        ("tickets/exact_match", "max", 0.02, 0.67, "+65.0 points"),  # not +3,250 %
        ("tickets/exact_match", "max", 0.0, 0.67, "+67.0 points"),
        ("eval_accuracy", "max", 0.5, 0.25, "-25.0 points"),
        ("tickets/token_f1", "max", 0.02, 0.67, "+0.65"),
        ("eval_reward", "max", -0.001, 0.5, "+0.501"),
        ("eval_loss", "min", 0.0, 0.5, ""),
    ],
)
def test_a_gain_is_percent_of_a_loss_and_points_of_a_share(
    metric: str, mode: str, base: float, value: float, said: str, tmp_path: Path
) -> None:
    task = {"name": "tickets", "data": "x.jsonl", "metrics": ["exact_match", "token_f1"]}
    run = Run.create(tmp_path, "x", "", {"objective": [metric, mode], "experiment": {"evaluation": {"tasks": [task]}}})
    for name, number in (("base", base), ("000", value)):
        run.trial(name).path.mkdir()
        append_row(run.trial(name).metrics_path, {"step": 1, "tokens": 1, "seconds": 1.0, metric: number})
        run.trial(name).set_state("finished")
    board = leaderboard(run)
    assert board.gained(board.rows[0]) == said
    if said.endswith("points"):
        assert "in percentage points" in str(board.footer)
        assert next(csv.DictReader(io.StringIO(to_csv(board))))["gain_points"] == ""


def test_no_trial_has_a_value(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add(run, "000", [], "failed")
    add(run, "001", [float("nan")], "failed")
    assert leaderboard(run).best is None
    to_table(leaderboard(run))


def test_the_csv_has_the_base_as_rank_0(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add(run, "base", [4.0])
    add(run, "000", [3.0], **{"adapter.r": 4, "train.learning_rate": 1e-4})
    rows = list(csv.DictReader(io.StringIO(to_csv(leaderboard(run)))))
    assert [row["rank"] for row in rows] == ["0", "1"]
    assert rows[0]["trial"] == "base"
    assert rows[1]["adapter.r"] == "4"
    assert rows[1]["gain_percent"] == "25.0"


def test_a_narrow_terminal_goes_without_the_last_columns(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add(run, "000", [3.0], **{"adapter.r": 4, "train.learning_rate": 1e-4})
    board = leaderboard(run)
    whole = [column.header for column in to_table(board).columns]
    narrow = [column.header for column in to_table(board, width=72).columns]
    assert whole[-1] == "trainable"
    assert narrow[-1] in ("learning_rate", "steps", "time")
    assert whole[: len(narrow)] == narrow


def test_finished_trials_are_ranked_by_all_rows_and_the_others_by_the_part(tmp_path: Path) -> None:
    """By the part 001, 002, 000, 003. On all rows 000 is better than 001, so these two share out the first and the
    third place; 002 was stopped between them."""
    told = {"objective": ["eval_loss", "min"], "data": {"eval_rows": 200}}
    run = Run.create(tmp_path, "x", "", {**told, "eval_part": {"rows": [*range(32)], "questions": None}})
    whole = {"base": 4.0, "000": 1.0, "001": 1.1, "003": 1.5}
    for name, value in {"base": 5.0, "000": 1.3, "001": 1.0, "002": 1.2, "003": 1.4}.items():
        add(run, name, [value + 1, value], "stopped" if name == "002" else "finished", r=4)
        if name in whole:
            row = {"step": 2, "tokens": 200, "seconds": 5.0, "all_rows": {"step": 2, "eval_loss": whole[name]}}
            append_row(run.trial(name).metrics_path, row)
    board = leaderboard(run)
    assert [(row.trial, row.value, row.all_rows) for row in board.rows] == [
        ("000", 1.3, 1.0), ("002", 1.2, None), ("001", 1.0, 1.1), ("003", 1.4, 1.5)]  # fmt: skip
    gains = {row.trial: row.gain for row in board.rows}
    assert gains == {"000": 75.0, "002": pytest.approx(76.0), "001": pytest.approx(72.5), "003": 62.5}
    assert [column.header for column in to_table(board).columns][3:6] == ["eval_loss on 32", "on all", "vs base"]
    assert "trials are compared on 32 rows" in str(to_table(board).caption)
    lines = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert [line["eval_loss_all_rows"] for line in lines] == ["4.0", "1.0", "", "1.1", "1.5"]
    assert (lines[1]["eval_loss"], board.rows[0].final, board.rows[1].final) == ("1.3", 1.0, 1.2)
