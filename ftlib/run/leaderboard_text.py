"""A leaderboard as a table for a terminal, and as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from ftlib.run.directory import ALL_ROWS
from ftlib.run.gain import COLUMN_OF
from ftlib.run.leaderboard import Leaderboard, Row
from ftlib.run.plain_text import one_line

if TYPE_CHECKING:
    from rich.table import Table

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")  # how a cell begins that is computed
COSTS = ("steps", "time", "tokens/s", "trainable")  # the columns that a narrow terminal goes without


def to_csv(board: Leaderboard) -> str:
    """The whole leaderboard, one line a trial, the base first with rank 0."""
    out = io.StringIO()
    whole = [] if board.part_rows is None else [f"{board.metric}_{ALL_ROWS}"]
    further = further_headings(board)
    names = [
        "rank",
        "trial",
        "state",
        board.metric,
        *whole,
        *further,
        *_verdicts(board),
        COLUMN_OF[board.unit],
        *board.parameters,
    ]
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
            **{name: row.further.get(name) for name in further},
            **dict(zip(_verdicts(board), (row.front, row.broken <= 0), strict=True) if _verdicts(board) else ()),
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
    told = (board.numbers, board.marks, board.footer, board.chance, pack)
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
    first = [board.metric] if board.part_rows is None else [f"{board.metric} on {board.part_rows:,}", "on all"]
    return [*first, *further_headings(board)]


def further_headings(board: Leaderboard) -> list[str]:
    """What trials are judged by besides the first metric."""
    return list(dict.fromkeys(name for row in board.rows for name in row.further))


def _verdicts(board: Leaderboard) -> list[str]:
    """The columns of the CSV on the front and the bounds, where there are any."""
    return ["front", "keeps_bounds"] if board.objectives or board.bounds else []


def values(row: Row, board: Leaderboard) -> list[float | None]:
    """A trial's number, and where that is on a part of the rows, the one on all."""
    first = [row.value] if board.part_rows is None else [row.value, row.all_rows]
    return [*first, *(row.further.get(name) for name in further_headings(board))]


def figure(value: float | None) -> str:
    """A number of the table; whole ones that are large without decimals."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def mark(row: Row, board: Leaderboard) -> str:
    """What stands beside a rank: on the front, beyond a bound, within chance of the best."""
    signs = ["!"] * (row.broken > 0) + ["*"] * row.front + ["~"] * (len(board.ties) > 1 and row.trial in board.ties)
    return "".join(f" {sign}" for sign in signs)


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
        "–" if row.rank is None else f"{row.rank}{mark(row, board)}",
        "untuned base" if row is board.base else row.name,
        row.state,
        *map(figure, values(row, board)),
        *([board.gained(row)] if board.footer else []),
        *[_short(row.params.get(name, "")) for name in board.parameters],
        *[cost[heading] for heading in costs],
    ]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else one_line(str(value))
