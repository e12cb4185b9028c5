"""The leaderboard: every trial of a run, best first, the untuned base above them. Reads the run directory only."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config import ScaleSection
from ftlib.files.atomic import write_text
from ftlib.files.json_files import read_json
from ftlib.run.cost import spent
from ftlib.run.directory import ALL_ROWS, Run, Trial
from ftlib.run.gain import COLUMN_OF, SAID, Unit, gain_of, told, unit_of
from ftlib.run.layout import BASE, EVALUATION, LEADERBOARD, PACK_FILE
from ftlib.run.plain_text import one_line

if TYPE_CHECKING:
    from rich.table import Table


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")  # how a cell begins that is computed
COSTS = ("steps", "time", "tokens/s", "trainable")  # the columns that a narrow terminal goes without


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

    def __str__(self) -> str:
        """The table, for `print` in a notebook."""
        from rich.console import Console

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
    def best(self) -> Row | None:
        return self.rows[0] if self.rows and self.rows[0].value is not None else None

    @property
    def parameters(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.params))


def leaderboard(run: Run) -> Leaderboard:
    """The leaderboard as the run directory stands now: also of a sweep that is still running."""
    metric, mode = run.objective
    experiment = run.resolved.get("experiment", {})
    unit = unit_of(metric, mode, experiment)
    base = _row(run.trial(BASE), metric, mode) if run.trial(BASE).metrics() else None
    found = [_row(trial, metric, mode) for trial in run.trials()]
    rows = [replace(row, gain=gain_of(*_beside(row, base), mode, unit)) for row in found]
    scored = [row for row in rows if row.value is not None and row.state != "failed" and not row.replica_of]
    ranked = [replace(row, rank=rank) for rank, row in enumerate(_best_first(scored, mode), start=1)]
    unranked = [row for row in rows if row not in scored]
    model = Path(experiment.get("model", {}).get("name_or_path", "")).name or None
    evaluated = [row.trial for row in ranked]
    ties = tuple(trial for trial in _told(run).get("ties", ()) if trial in evaluated)
    counts = _eval_rows(run), _part_rows(run)
    board = Leaderboard(metric, mode, base, ranked + unranked, None, model, _isolation(run), ties, *counts, unit)
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


def _row(trial: Trial, metric: str, mode: str) -> Row:
    rows, status = trial.metrics(), trial.status
    values = [row[metric] for row in trial.evaluations(metric)]
    value = (min if mode == "min" else max)(values, default=None)
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
        all_rows=(trial.on_all_rows or {}).get(metric),
    )


def to_csv(board: Leaderboard) -> str:
    """The whole leaderboard, one line a trial, the base first with rank 0."""
    out = io.StringIO()
    whole = [] if board.part_rows is None else [f"{board.metric}_{ALL_ROWS}"]
    names = ["rank", "trial", "state", board.metric, *whole, COLUMN_OF[board.unit], *board.parameters]
    names += [
        "step",
        "tokens",
        "seconds",
        "tokens_per_second",
        "trainable_parameters",
        "cost",
        "pareto",
        "cloned_from",
        "replica_of",
        "changed",
        "reason",
    ]
    writer = csv.DictWriter(out, names)
    writer.writerow({name: _cell(name) for name in names})
    for row in [*([board.base] if board.base else []), *board.rows]:
        cells = {
            "rank": 0 if row is board.base else row.rank,
            "trial": row.trial,
            "state": row.state,
            board.metric: row.value,
            **dict.fromkeys(whole, row.all_rows),
            COLUMN_OF[board.unit]: None if row.gain is None else round(row.gain, 4),
            **row.params,
            "step": row.step,
            "tokens": row.tokens,
            "seconds": row.seconds,
            "tokens_per_second": round(row.tokens_per_second, 1),
            "trainable_parameters": row.trainable_parameters,
            "cost": None if row.cost is None else round(row.cost, 6),
            "pareto": "" if row.cost is None else row.pareto,
            "cloned_from": row.cloned_from,
            "replica_of": row.replica_of,
            "changed": "; ".join(f"{path}={value}" for path, value in (row.changed or {}).items()),
            "reason": row.reason,
        }
        writer.writerow({name: _cell(value) for name, value in cells.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would compute (`=HYPERLINK(...)`) begins with an apostrophe there; numbers stay
    numbers."""
    if not isinstance(value, str) or not value.startswith(FORMULAS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_leaderboard(run: Run) -> Leaderboard:
    """Writes `leaderboard.csv` into the run directory."""
    board = leaderboard(run)
    write_text(run.path / LEADERBOARD, to_csv(board))
    return board


def to_table(board: Leaderboard, top: int | None = None, width: int | None = None) -> Table:
    """The leaderboard for a terminal; parameters under the last part of their path.

    Where it is wider than `width` characters, the last columns are left out: `leaderboard.csv` has them all.
    """
    from rich.console import Console

    costs = ("cost", *COSTS) if board.cost is not None else COSTS
    for kept in range(len(costs), -1, -1):
        table = _table(board, top, costs[:kept])
        if width is None or Console(width=1000, markup=False, emoji=False).measure(table).maximum <= width:
            break
    return table


def _table(board: Leaderboard, top: int | None, costs: tuple[str, ...]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    pack = f"pack: {board.isolation}" if board.isolation else None
    told = (board.numbers, board.footer, board.chance, pack)
    caption = Text("\n".join(line for line in told if line), style="dim") or None
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, caption=caption, caption_justify="left")
    compared = ("vs base",) if board.footer else ()
    for heading in ("#", "trial", "state", *value_headings(board), *compared):
        table.add_column(heading, justify="left" if heading in ("trial", "state") else "right", no_wrap=True)
    for name in board.parameters:
        table.add_column(name.rpartition(".")[2], justify="right", no_wrap=True)
    for heading in costs:
        table.add_column(heading, justify="right", no_wrap=True)
    if board.base:
        table.add_row(*_cells(board.base, board, costs), style="dim")
    for row in board.rows[:top]:
        table.add_row(*_cells(row, board, costs), style="bold green" if row is board.best else "")
    return table


def value_headings(board: Leaderboard) -> list[str]:
    """The heads of the columns of `values`."""
    if board.part_rows is None:
        return [board.metric]
    return [f"{board.metric} on {board.part_rows:,}", "on all"]


def values(row: Row, board: Leaderboard) -> list[float | None]:
    """A trial's number, and where that is on a part of the rows, the one on all."""
    return [row.value] if board.part_rows is None else [row.value, row.all_rows]


def _cells(row: Row, board: Leaderboard, costs: tuple[str, ...]) -> list[str]:
    trained = row.trainable_parameters
    cost = {
        "cost": "" if row.cost is None else f"{row.cost:.4g}{' *' if row.pareto else '  '}",
        "steps": str(row.step),
        "time": f"{row.seconds:.1f}s",
        "tokens/s": f"{row.tokens_per_second:,.0f}" if row.tokens else "",
        "trainable": "" if trained is None else f"{trained:,}",
    }
    return [
        "–" if row.rank is None else f"{row.rank}{' ~' if len(board.ties) > 1 and row.trial in board.ties else ''}",
        "untuned base" if row is board.base else row.name,
        row.state,
        *["–" if value is None else f"{value:.4f}" for value in values(row, board)],
        *([board.gained(row)] if board.footer else []),
        *[_short(row.params.get(name, "")) for name in board.parameters],
        *[cost[heading] for heading in costs],
    ]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else one_line(str(value))
