"""The command that asks models the questions of a file and says how good their answers are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftlib.driver.terminal import echo, print_table, say

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.argument("file", metavar="FILE")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="How answers are scored: a name, or a mapping as in YAML; again for more. Default: exact_match.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    metavar="N",
    help="The longest answer.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N rows.")
@click.option("--group", metavar="COLUMN", help="Rows with one value in COLUMN count as one for the statistics.")
@click.option("--system", metavar="TEXT", help="A system message before each question.")
@click.option(
    "--few-shot",
    "shown",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Ask each base again, shown N rows of --examples.",
)
@click.option("--examples", metavar="FILE", help="Rows with answers, which --few-shot shows.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep the numbers and every answer there."
)
@click.option("--trust", is_flag=True, help="Let code run that comes with a model.")  # fmt: skip
def evaluate(
    models: tuple[str, ...],
    file: str,
    metrics: tuple[str, ...],
    max_new_tokens: int,
    limit: int | None,
    group: str | None,
    system: str | None,
    shown: int | None,
    examples: str | None,
    out: Path | None,
    trust: bool,
) -> int:
    """Ask MODELs the questions of FILE, and compare the first MODEL with each other one.

    A MODEL is a Hub name or a folder, registry:NAME[@N], a run or RUN/trials/ID, or https://HOST/v1#NAME, in any mix.
    """
    import yaml
    from pydantic import ValidationError

    from ftlib.config import TaskSection
    from ftlib.config.messages import explain
    from ftlib.driver import evaluate as driver
    from ftlib.errors import InputError

    keys = {"max_new_tokens": max_new_tokens, "limit": limit, "group": group, "system": system}
    named = [yaml.safe_load(metric) if metric.startswith("{") else metric for metric in metrics or ("exact_match",)]
    tree = {"name": "task", "data": file, "metrics": named, **keys}
    try:
        task = TaskSection.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain(error, TaskSection, "evaluate")) from None
    results, found = driver.evaluate(models, task, shown or 0, examples, trust)
    one = found["tasks"][task.name]
    if one["contenders"]:
        print_table(to_table(one))
        echo(f"{one['rows']:,} rows" + (f" in {one['units']:,} groups" if one["units"] != one["rows"] else ""))
    for sentence in found["failed"]:
        say(f"warning: {sentence}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        driver.write(results, found, out)
        echo(f"answers and numbers: {out}")
    return 1 if found["failed"] else 0


def to_table(task: Mapping[str, Any]) -> Table:
    """A line for each model: its numbers with their intervals, and whether the first model differs beyond chance."""
    from rich import box
    from rich.table import Table

    from ftlib.evaluation.verdict import written

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("model", *task["metrics"]):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    ps = {(found["theirs"], found["metric"]): found["p"] for found in task["comparisons"]}
    for heading in [f"p of {metric}" for metric in task["metrics"]] if ps else ():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("s/answer", justify="right", no_wrap=True)
    for name, contender in task["contenders"].items():
        numbers = [written(number, metric, task) for metric, number in contender["numbers"].items()]
        chances = [_p(ps.get((name, metric))) for metric in task["metrics"]] if ps else []
        seconds = contender["seconds_per_answer"]
        table.add_row(name, *numbers, *chances, "" if seconds is None else f"{seconds:.3g}")
    return table


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


COMMANDS = (evaluate,)
