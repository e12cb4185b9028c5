"""`ftlib pipeline`: the whole way in one file."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from ftlib.driver.terminal import echo, say

if TYPE_CHECKING:
    from ftlib.pipelines.plan import Plan

EVERY = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
INTERRUPTED = 130


def _seconds(context: click.Context, option: click.Parameter, given: str) -> float:
    """`90s`, `30m`, `1h` or `1d` in seconds."""
    found = EVERY.fullmatch(given.strip())
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(f"'{given}' is no time: write 90s, 30m, 1h or 1d.")
    return float(found[1]) * SECONDS[found[2]]


@click.command()
@click.argument("file", type=click.Path())
@click.option("--from", "start", metavar="STEP", help="Do STEP and all that need it again.")
@click.option("--only", metavar="STEP", help="Do STEP again, and no other.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and why.")
@click.option("--if-due", is_flag=True, help="Do nothing unless `when` of FILE is true now.")
@click.option("--watch", is_flag=True, help="Stay, and do it again whenever `when` of FILE is true, until Ctrl-C.")
@click.option("--every", default="1h", show_default=True, metavar="TIME", callback=_seconds,
              help="How often --watch looks: 90s, 30m, 1h, 1d.")  # fmt: skip
def pipeline(
    file: str, start: str | None, only: str | None, dry_run: bool, if_due: bool, watch: bool, every: float
) -> int:
    """Do the steps of FILE in order, each only where what it depends on has changed. After a kill, call it again."""
    from ftlib.errors import FtlibError, InputError
    from ftlib.pipelines.again import again_of, opened

    if sum(map(bool, (start, only, dry_run, if_due or watch))) > 1 and not (dry_run and not (if_due or watch)):
        raise InputError("--from, --only, and --if-due or --watch each say what is done: give one of them.")
    plan, text = opened(file)
    again = again_of(plan, start, only)
    if dry_run:
        _print_outlook(plan, again, only)
        return 0
    if (if_due or watch) and plan.pipeline.condition is None:
        raise InputError(f"{file} has no `when`: write for example when: drift > 0.2 or new_rows > 500.")
    if if_due and not _is_due(plan):
        return 0
    status = _run(plan, text, again, only, new_round=if_due)
    while watch and status != INTERRUPTED and _waited(every):
        try:
            plan, text = opened(file)
            if _is_due(plan):
                status = _run(plan, text, set(), None, new_round=True)
        except FtlibError as error:  # a file that is being written, a store that is away: it looks again
            say(f"warning: {error}")
    return status


def _waited(seconds: float) -> bool:
    """Whether the time is over; False where a Ctrl-C comes first, which ends the watching."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return False
    return True


def _run(plan: Plan, text: str, again: set[str], only: str | None, new_round: bool) -> int:
    from ftlib.driver.terminal_listener import TerminalListener
    from ftlib.pipelines.runner import run

    outcome = run(plan, text, TerminalListener(), again, only, new_round)
    done, failed = len(outcome.done), [*outcome.failed, *outcome.waiting]
    echo(f"{done} done, {len(outcome.skipped)} unchanged, {len(failed)} not done: {plan.folder.page}")
    if outcome.interrupted is not None:
        echo(f"interrupted at {outcome.interrupted}: the same command goes on there", fg="yellow")
        return INTERRUPTED
    return 1 if failed else 0


def _is_due(plan: Plan) -> bool:
    from ftlib.pipelines.due import figures

    condition = plan.pipeline.condition
    assert condition is not None
    found = figures(plan.pipeline, plan.folder)
    due = condition.holds(found)
    told = ", ".join(f"{name} {_figure(found[name])}" for name in sorted(condition.names))
    echo(f"{'due' if due else 'not due'}: {plan.pipeline.when} ({told})")
    return due


def _figure(value: float | None) -> str:
    return "is not known yet" if value is None else f"{value:.4g}"


def _print_outlook(plan: Plan, again: set[str], only: str | None) -> None:
    for name, why in plan.outlook(plan.folder.until, again, only).items():
        echo(f"{name}: {why or 'nothing has changed'}")


COMMANDS = (pipeline,)
