"""The command that asks models the questions of a file, or benchmarks, and says how good their answers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftlib.driver.terminal import echo, print_table, say

if TYPE_CHECKING:
    from rich.table import Table

    from ftlib.config import TaskSection


def _keys(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`HOST=NAME` as a mapping."""
    parts = [one.partition("=") for one in given]
    wrong = next((one for one, (host, _, name) in zip(given, parts, strict=True) if not host or not name), None)
    if wrong is not None:
        raise click.BadParameter(f"'{wrong}' is not HOST=NAME, as in api.together.xyz=TOGETHER_API_KEY.")
    return {host.lower(): name for host, _, name in parts}


key_env = click.option(
    "--key-env",
    "keys",
    multiple=True,
    metavar="HOST=NAME",
    callback=_keys,
    help="The environment variable NAME has the key of the URLs at HOST; again for more.",
)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="MODEL... [FILE]")
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
    "--benchmark",
    metavar="TASK[,TASK]",
    help="Ask lm-eval's benchmarks, and no FILE: names, or YAML files of tasks.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep the numbers and every answer there.",
)
@key_env
@click.option("--trust", is_flag=True, help="Let code run that comes with a model.")
def evaluate(
    words: tuple[str, ...],
    metrics: tuple[str, ...],
    benchmark: str | None,
    limit: int | None,
    shown: int | None,
    examples: str | None,
    out: Path | None,
    keys: dict[str, str],
    trust: bool,
    **of_task: Any,
) -> int:
    """Ask MODELs the questions of FILE, and compare the first MODEL with each other one.

    A MODEL is a Hub name or a folder, registry:NAME[@N], a run or RUN/trials/ID, or https://HOST/v1#NAME, in any mix.
    """
    from ftlib.driver import evaluate as driver
    from ftlib.errors import InputError

    if benchmark is not None:
        _check_alone()
        results, found = driver.do_benchmarks(words, _names(benchmark), limit, trust)
    elif len(words) < 2:
        raise InputError(f"'{words[0]}' is all there is: give the MODELs and then the FILE of questions.")
    else:
        task = task_of(words[-1], metrics, {"limit": limit, **of_task})
        results, found = driver.evaluate(words[:-1], task, shown or 0, examples, trust, keys)
    for name, one in found["tasks"].items():
        if one["contenders"]:
            _print(name if benchmark is not None else None, one)
    for sentence in found["failed"]:
        say(f"warning: {sentence}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        driver.write(results.lines(), found, out)
        echo(f"answers and numbers: {out}")
    return 1 if found["failed"] else 0


def _check_alone() -> None:
    """Raises InputError for an option that says something of FILE: a benchmark has its own."""
    from ftlib.errors import InputError

    context = click.get_current_context()
    for name in ("metrics", "max_new_tokens", "group", "system", "shown", "examples", "keys"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(one for one in context.command.params if one.name == name).opts[0]
            raise InputError(f"{option} belongs to a FILE, and --benchmark asks none: leave one of the two out.")


def _names(benchmark: str) -> list[str]:
    from ftlib.errors import InputError

    names = [name for part in benchmark.split(",") if (name := part.strip())]
    if not names:
        raise InputError("--benchmark names no benchmark: give names of lm-eval's (arc_easy,gsm8k) or YAML files.")
    return names


def task_of(file: str, metrics: Sequence[str], keys: Mapping[str, Any]) -> TaskSection:
    """The task that the options describe. Raises InputError for what is none."""
    from pydantic import ValidationError

    from ftlib.config import TaskSection
    from ftlib.config.messages import explain
    from ftlib.errors import InputError

    named = [_metric(metric) for metric in metrics or ("exact_match",)]
    try:
        return TaskSection.model_validate({"name": "task", "data": file, "metrics": named, **keys})
    except ValidationError as error:
        raise InputError(explain(error, TaskSection, "evaluate")) from None


def _metric(text: str) -> Any:
    import yaml

    from ftlib.errors import InputError

    try:
        return yaml.safe_load(text) if text.startswith("{") else text
    except yaml.YAMLError as error:
        reason = str(getattr(error, "problem", None) or error)
        raise InputError(f"--metric {text}: it is no mapping as in YAML: {reason}.") from None


def _print(name: str | None, task: Mapping[str, Any]) -> None:
    from ftlib.evaluation.verdict import rows_of

    if name is not None:
        echo(name)
    print_table(to_table(task))
    echo(rows_of(task))
    for one, contender in task["contenders"].items():
        for sentence in contender["warnings"]:
            say(f"warning: {one}: {sentence}")


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
    table.add_column("mean s/answer", justify="right", no_wrap=True)
    for name, contender in task["contenders"].items():
        numbers = [written(number, metric, task) for metric, number in contender["numbers"].items()]
        chances = [_p(ps.get((name, metric))) for metric in task["metrics"]] if ps else []
        seconds = contender["seconds_per_answer"]
        table.add_row(name, *numbers, *chances, "" if seconds is None else f"{seconds:.3g}")
    return table


def _p(p: float | None) -> str:
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


COMMANDS = (evaluate,)
