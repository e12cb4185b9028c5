"""What the sweep's own W&B run holds: tables of the leaderboard and of answers, and artifacts with their lineage."""

from __future__ import annotations

import json
from typing import Any

from ftlib.config import Wandb
from ftlib.files.json_files import read_json
from ftlib.run.directory import ALL_ROWS, Trial
from ftlib.run.gain import COLUMN_OF
from ftlib.run.layout import ADAPTER
from ftlib.run.leaderboard import Row
from ftlib.run.leaderboard_text import further_headings, values
from ftlib.run.tracking.names import Names
from ftlib.run.tracking.results import Results

SWEEP = "sweep"  # the name and the job type of that run
ANSWERS = 200  # rows of the table of answers
TEXT = 10_000  # characters of a cell
COLUMNS = ("task", "contender", "row", "prompt", "reference", "answer", "scores", "seconds", "tokens")
NAME = 100  # characters of an artifact's name: W&B takes 128


def tell(run: Any, results: Results, settings: Wandb, names: Names, online: bool) -> None:
    """Logs the results into `run`. The data that was trained on is the artifact from which the winner comes."""
    best = results.board.best
    run.summary.update({"verdict": results.verdict, "winner": best and best.trial, "best": best and best.final})
    run.summary.update(results.numbers)
    run.log({"leaderboard": _leaderboard(results, names)})
    answers = results.answers(ANSWERS) if settings.log_answers else []
    if answers:
        run.log({"answers": _table(COLUMNS, [[_cell(line.get(key)) for key in COLUMNS] for line in answers])})
    if online:  # W&B knows no use of artifacts offline
        run.use_artifact(_data(results))
    _log_files(run, results, settings)
    if results.winner is not None and settings.log_model:
        _log_winner(run, results, results.winner, names)


def _leaderboard(results: Results, names: Names) -> Any:
    """The table, best first, the base above it, under the names that the trials' runs have."""
    board = results.board
    points = {row.trial: names.parameters(row.params) for row in board.rows}
    swept = list(dict.fromkeys(name for point in points.values() for name in point))
    metric = names.metric(board.metric)
    metrics = [metric, *([] if board.part_rows is None else [f"{metric}_{ALL_ROWS}"])]
    metrics += [names.metric(name) for name in further_headings(board)]
    columns = ["rank", "trial", "state", *metrics, COLUMN_OF[board.unit], *swept, "step", "seconds", "cost"]

    def cells(row: Row) -> list[Any]:
        point = points.get(row.trial, {})
        begin = [row.rank, row.trial, row.state, *values(row, board), row.gain]
        return [*begin, *(_cell(point.get(name)) for name in swept), row.step, row.seconds, row.cost]

    return _table(columns, [cells(row) for row in [*([board.base] if board.base else []), *board.rows]])


def _table(columns: Any, rows: list[list[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=rows, allow_mixed_types=True)


def _cell(value: Any) -> Any:
    """A number as it is; a text with an end; chats and scores as JSON."""
    if value is None or isinstance(value, int | float):
        return value
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:TEXT]


def _artifact(results: Results, kind: str, **metadata: Any) -> Any:
    import wandb

    return wandb.Artifact(f"{results.run.name[:NAME]}-{kind}", type=kind, metadata=metadata)


def _data(results: Results) -> Any:
    """The data by its hash and its counts: the rows stay where they are."""
    told = results.run.resolved.get("data") or {}
    artifact = _artifact(results, "dataset", hash=told.get("hash"), versions=results.run.data_versions)
    with artifact.new_file("data.json") as file:
        json.dump(told, file, default=str)
    return artifact


def _log_files(run: Any, results: Results, settings: Wandb) -> None:
    files = results.files(settings.log_answers)
    if not files:
        return
    artifact = _artifact(results, "results", verdict=results.verdict)
    for file in files:
        _add(artifact, file, file.name)
    run.log_artifact(artifact)


def _log_winner(run: Any, results: Results, winner: Trial, names: Names) -> None:
    """The winner's adapter. A whole model is too large to be sent unasked."""
    folder = winner.weights
    if folder is None or folder.name != ADAPTER:
        run.summary["winner_is"] = "not sent: it is no adapter, or not on this machine"
        return
    best = results.board.best
    point = {name: _cell(value) for name, value in names.parameters(winner.params).items()}
    base = (read_json(folder / "adapter_config.json", dict) or {}).get("base_model_name_or_path")
    artifact = _artifact(results, "model", trial=winner.id, value=best and best.final, base=base, **point)
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        _add(artifact, file, str(file.relative_to(folder)))
    run.log_artifact(artifact, aliases=["winner"])


def _add(artifact: Any, file: Any, name: str) -> None:
    """By its place, without a copy: the run directory keeps it."""
    artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
