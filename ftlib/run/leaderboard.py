"""The leaderboard: every trial of a run, best first, the untuned base above them. Reads the run directory only."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftlib.config import ScaleSection
from ftlib.config.objectives import Constraint
from ftlib.files.atomic import write_text
from ftlib.files.json_files import read_json
from ftlib.run.cost import spent
from ftlib.run.directory import Run, Trial
from ftlib.run.front import layers
from ftlib.run.gain import SAID, Unit, gain_of, told, unit_of
from ftlib.run.layout import BASE, EVALUATION, LEADERBOARD, PACK_FILE
from ftlib.run.plain_text import one_line


@dataclass(frozen=True)
class Row:
    """One line. `value` is the trial's best evaluation (the one whose weights are kept), on the rows that all trials
    are compared on; None where there is none."""

    rank: int | None
    trial: str
    state: str
    value: float | None
    gain: float | None  # against the base on the same rows, in the leaderboard's unit, positive = better
    params: dict[str, Any]
    step: int
    tokens: int
    seconds: float
    trainable_parameters: int | None
    reason: str | None
    cloned_from: str | None = None
    replica_of: str | None = None  # whose settings it has, with another seed: it is not ranked
    changed: dict[str, Any] | None = None  # by hand: dotted paths to values
    cost: float | None = None  # its part of the workers it was on, where they have a price
    pareto: bool = False  # no trial is both cheaper and better
    further: dict[str, float | None] = field(
        default_factory=dict
    )  # what else trials are judged by, of the same weights
    front: bool = False  # of several objectives: on the Pareto front
    broken: float = 0.0  # how far it is beyond the bounds of sweep.constraints, all together
    all_rows: float | None = None  # of the same weights on all rows, where `value` is on a part: of a finished trial

    @property
    def name(self) -> str:
        """The trial, and what a person made of it: `007 of 003`, `003 +`."""
        if self.replica_of:
            return f"{self.trial}, {self.replica_of} with seed {(self.changed or {}).get('train.seed')}"
        if self.cloned_from:
            return f"{self.trial} of {self.cloned_from}"
        return f"{self.trial} +" if self.changed else self.trial

    @property
    def final(self) -> float | None:
        """The number on the most rows that the trial was evaluated on."""
        return self.value if self.all_rows is None else self.all_rows

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Leaderboard:
    """The base (or None) and the trials, best first, those without a value last."""

    metric: str
    mode: str
    base: Row | None
    rows: list[Row]
    cost: float | None = None  # of the whole sweep
    model: str | None = None  # the base's name
    isolation: str | None = None  # of a packed run: what its trials were to each other
    ties: tuple[str, ...] = ()  # the trials that cannot be told apart from the best, the best among them
    eval_rows: int | None = None  # on which they were compared, or where that is a part, all of them
    part_rows: int | None = None  # of which `value` is; None where that is all
    unit: Unit = "percent"  # of gains
    objectives: tuple[tuple[str, str], ...] = ()  # where there are several: the metrics and their modes
    bounds: tuple[Constraint, ...] = ()

    def __str__(self) -> str:
        """The table, for `print` in a notebook."""
        from rich.console import Console

        from ftlib.run.leaderboard_text import to_table

        text = io.StringIO()
        Console(width=200, file=text, markup=False, emoji=False).print(to_table(self))
        return text.getvalue().rstrip()

    @property
    def footer(self) -> str | None:
        """What `vs base` is measured against; None where there is no base to compare with."""
        if self.base is None or self.base.value is None:
            return None
        name = f" ({self.model})" if self.model else ""
        said = f", {SAID[self.unit]}" if SAID[self.unit] else ""
        return f"vs base: how much better than the base{name} before any training, on the same rows{said}"

    def gained(self, row: Row) -> str:
        """How much better than the base a trial is, as a person reads it: `+91.0 %`; empty where nobody can say."""
        return told(row.gain, self.unit)

    @property
    def numbers(self) -> str | None:
        """On which rows the numbers are; None where all are on all rows."""
        if self.part_rows is None:
            return None
        return (
            f"trials are compared on {self.part_rows:,} rows, the same for all\n"
            "finished trials are ranked among themselves on all rows"
        )

    def base_beside(self, row: Row) -> float | None:
        """The base's number on the rows of the row's final one."""
        if self.base is None:
            return None
        return self.base.value if row.all_rows is None else self.base.all_rows

    @property
    def chance(self) -> str | None:
        """Which trials may be as good as the best; None where it is known to be the best, or nobody has looked."""
        if len(self.ties) < 2:
            return None
        names = f"{', '.join(self.ties[:-1])} and {self.ties[-1]}"
        compared = self.part_rows if self.best is not None and self.best.all_rows is None else None
        count = compared or self.eval_rows
        rows = f" on {count:,} rows" if count else ""
        return f"~ within chance of each other{rows}: {names}"

    @property
    def marks(self) -> str | None:
        """What the marks beside the ranks mean; None where there are none."""
        names = [name for name, _ in self.objectives]
        told = []
        if len(names) > 1:
            several = f"{', '.join(names[:-1])} and {names[-1]}"
            told.append(f"* on the Pareto front of {several}: no trial is better in one and worse in none")
        if any(row.broken > 0 for row in self.rows):
            told.append(f"! beyond a bound: {', '.join(map(str, self.bounds))}")
        return "\n".join(told) or None

    @property
    def best(self) -> Row | None:
        """The best trial by the first metric, of those that keep every bound; None where there is none."""
        first = self.rows[0] if self.rows else None
        return first if first is not None and first.value is not None and first.broken <= 0 else None

    @property
    def parameters(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.params))


def leaderboard(run: Run) -> Leaderboard:
    """The leaderboard as the run directory stands now: also of a sweep that is still running."""
    (metric, mode), objectives, bounds = run.objective, run.objectives, run.constraints
    judged = run.judged_by
    experiment = run.resolved.get("experiment", {})
    unit = unit_of(metric, mode, experiment)
    base = _row(run.trial(BASE), metric, mode, judged) if run.trial(BASE).metrics() else None
    found = [_judged(_row(trial, metric, mode, judged), bounds) for trial in run.trials()]
    rows = [replace(row, gain=gain_of(*_beside(row, base), mode, unit)) for row in found]
    scored = [row for row in rows if row.value is not None and row.state != "failed" and not row.replica_of]
    ordered = _best_first(scored, mode)
    if len(objectives) > 1 or bounds:
        ordered = _front_first(ordered, objectives)
    ranked = [replace(row, rank=rank) for rank, row in enumerate(ordered, start=1)]
    unranked = [row for row in rows if row not in scored]
    model = Path(experiment.get("model", {}).get("name_or_path", "")).name or None
    evaluated = [row.trial for row in ranked]
    ties = tuple(trial for trial in _told(run).get("ties", ()) if trial in evaluated)
    counts = _eval_rows(run), _part_rows(run)
    board = Leaderboard(metric, mode, base, ranked + unranked, None, model, _isolation(run), ties, *counts, unit)
    board = replace(board, objectives=tuple(objectives) if len(objectives) > 1 else (), bounds=tuple(bounds))
    scale = ScaleSection.model_validate(experiment.get("scale", {}))
    if scale.worker_price is None:
        return board
    so_far = spent(run, scale.num_workers)
    priced = [replace(row, cost=so_far.cost_of(row.trial, scale)) for row in ranked]
    others = [replace(row, cost=so_far.cost_of(row.trial, scale)) for row in unranked]
    return replace(board, rows=_pareto(priced) + others, cost=so_far.cost(scale))


def _best_first(rows: list[Row], mode: str) -> list[Row]:
    """Like is compared with like: two trials that have a number on all rows by these, any others by those on the part
    that all have. So each has the place that the part gives it, and trials with all rows share out their places."""
    sign = 1 if mode == "min" else -1
    by_part = sorted(rows, key=lambda row: sign * (row.value or 0.0))
    whole = [row for row in by_part if row.all_rows is not None]
    shared = iter(sorted(whole, key=lambda row: sign * (row.all_rows or 0.0)))
    return [row if row.all_rows is None else next(shared) for row in by_part]


def _front_first(rows: list[Row], objectives: list[tuple[str, str]]) -> list[Row]:
    """Those that keep every bound before those that do not; of several objectives the Pareto front first, then the
    front of what is left, and so on. `rows` come best first by the first metric, and stay so within a front."""
    kept, others = [row for row in rows if row.broken <= 0], [row for row in rows if row.broken > 0]
    if len(objectives) > 1:
        layer = layers([_point(row, objectives) for row in kept])
        order = sorted(range(len(kept)), key=lambda place: (layer[place], place))
        kept = [replace(kept[place], front=layer[place] == 0) for place in order]
    return [*kept, *sorted(others, key=lambda row: row.broken)]


def _point(row: Row, objectives: list[tuple[str, str]]) -> list[float]:
    """The row's numbers, lower being better; what is missing is worst."""
    numbers = [row.value, *(row.further.get(name) for name, _ in objectives[1:])]
    signs = [1 if mode == "min" else -1 for _, mode in objectives]
    return [math.inf if value is None else sign * value for sign, value in zip(signs, numbers, strict=True)]


def _judged(row: Row, bounds: list[Constraint]) -> Row:
    """The row with how far it is beyond its bounds; a number that is missing keeps none."""
    found = [(bound, row.further.get(bound.metric, row.value)) for bound in bounds]  # or it is of the first metric
    beyond = [math.inf if value is None else bound.violation(value) for bound, value in found]
    return replace(row, broken=sum(max(0.0, amount) for amount in beyond))


def _isolation(run: Run) -> str | None:
    """What `pack.json` says that the trials of a pack were to each other."""
    match read_json(run.path / PACK_FILE):
        case {"isolation": {"sentence": str(sentence)}}:
            return one_line(sentence)
    return None


def _told(run: Run) -> dict[str, Any]:
    """What `evaluation.json` says of the trials."""
    return read_json(run.path / EVALUATION, dict) or {}


def _eval_rows(run: Run) -> int | None:
    """The rows that trials were compared on: those of a task, or those held out from the data."""
    count = _told(run).get("compared_on", run.resolved.get("data", {}).get("eval_rows"))
    return count if isinstance(count, int) else None


def _part_rows(run: Run) -> int | None:
    """The rows, or questions of a task, of the part that trials are compared on before their end; None where that is
    all."""
    asked = "questions" if "/" in run.objective[0] and not run.objective[0].startswith("eval_") else "rows"
    match run.resolved.get("eval_part"):
        case {"rows": rows, "questions": questions}:
            part = questions if asked == "questions" else rows
            return len(part) if isinstance(part, list) else None
    return None


def _pareto(ranked: list[Row]) -> list[Row]:
    """Marks the trials that are cheaper than every better one. They come best first."""
    marked, cheapest = [], float("inf")
    for row in ranked:
        cost = row.cost or 0.0
        marked.append(replace(row, pareto=cost < cheapest))
        cheapest = min(cheapest, cost)
    return marked


def _beside(row: Row, base: Row | None) -> tuple[float | None, float | None]:
    """The number of a trial and that of the base on the same rows: on all where both have that."""
    if base is None:
        return row.value, None
    whole = row.all_rows is not None and base.all_rows is not None
    return (row.all_rows, base.all_rows) if whole else (row.value, base.value)


def _row(trial: Trial, metric: str, mode: str, judged: Sequence[str]) -> Row:
    rows, status = trial.metrics(), trial.status
    best = (min if mode == "min" else max)(trial.evaluations(metric), key=lambda row: row[metric], default={})
    numbers = {**trial.measures, **best} if len(judged) > 1 else best
    value = best.get(metric)
    last: dict[str, Any] = rows[-1] if rows else {"step": 0, "tokens": 0, "seconds": 0.0}
    return Row(
        rank=None,
        trial=trial.id,
        state=status["state"],
        value=value,
        gain=None,
        params=trial.params,
        step=last["step"],
        tokens=last["tokens"],
        seconds=last["seconds"],
        trainable_parameters=trial.manifest.get("trainable_parameters"),
        reason=status.get("reason"),
        cloned_from=trial.lineage.get("cloned_from"),
        replica_of=trial.lineage.get("replica_of"),
        changed=trial.lineage.get("changed"),
        further={name: _number(numbers.get(name)) for name in judged if name != metric},
        all_rows=(trial.on_all_rows or {}).get(metric),
    )


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def write_leaderboard(run: Run) -> Leaderboard:
    """Writes `leaderboard.csv` into the run directory."""
    from ftlib.run.leaderboard_text import to_csv

    board = leaderboard(run)
    write_text(run.path / LEADERBOARD, to_csv(board))
    return board
