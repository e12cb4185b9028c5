"""The commands of an experiment: look at it, run it, steer it, read its leaderboard."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import click

from ftlib.cli import complete
from ftlib.driver.execute import go_on, start
from ftlib.driver.load import as_written, load
from ftlib.driver.prepare import prepared
from ftlib.driver.terminal import console, echo, print_table, width
from ftlib.driver.terminal_listener import TerminalListener, tell
from ftlib.run.layout import RESOLVED

EXPERIMENT = click.argument("file", type=click.Path())
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=complete.keys)
SMOKE = click.option("--smoke", is_flag=True, help="Set what FILE's section smoke says: a minute on a CPU.")
AS = click.option("--as", "name", metavar="NAME", help="Promote the winner as NAME, once it has passed the gate.")
RUN = click.argument("run", type=click.Path(), shell_complete=complete.runs)
TRIAL = click.argument("trial", shell_complete=complete.trials)


@click.command()
@EXPERIMENT
@OVERRIDES
@SMOKE
@click.option("--all", "everything", is_flag=True, help="Print the whole experiment before, every default filled in.")
def check(file: str, overrides: tuple[str, ...], smoke: bool, everything: bool) -> None:
    """Validate FILE and say in ten lines what is trained, on what, what it takes, and what is odd. Starts nothing."""
    import yaml

    from ftlib.cli.preview import preview

    experiment = load(file, overrides, smoke)
    out = console()
    if everything:
        out.print(yaml.safe_dump(experiment.to_dict(), sort_keys=False, width=110), highlight=False, soft_wrap=True)
    for line in preview(experiment, prepared(experiment, TerminalListener(), told=False).report):
        out.print(line, highlight=False, soft_wrap=True, markup=False)


@click.command()
@click.option("--markdown", is_flag=True, help="Print docs/compatibility.md.")
def methods(markdown: bool) -> None:
    """Print which methods, adapters, quantizations and backends go together, and why others do not."""
    from rich import box
    from rich.table import Table

    from ftlib.config import compat_table
    from ftlib.config.compat import RULES

    if markdown:
        echo(compat_table.markdown(), nl=False)
        return
    for matrix in compat_table.tables():
        table = Table(title=matrix.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("method", *matrix.columns):
            table.add_column(heading, no_wrap=True)
        for name, cells in matrix.rows.items():
            table.add_row(name, *map(compat_table.cell, cells))
        print_table(table)
    for number, rule in enumerate(RULES, 1):
        echo(f"{number:3}  {rule.sentence}")


@click.command()
@EXPERIMENT
@OVERRIDES
@SMOKE
@AS
def train(file: str, overrides: tuple[str, ...], smoke: bool, name: str | None) -> int:
    """Train FILE once, as it stands (its sweep section is left aside)."""
    _check_name(name)
    experiment = load(file, (*overrides, "sweep=null"), smoke)
    return tell(start(experiment, as_written(file, overrides, smoke), TerminalListener()), name)


@click.command()
@EXPERIMENT
@OVERRIDES
@SMOKE
@AS
@click.option("--add-trials", type=click.IntRange(1), metavar="N", help="FILE is a run: N trials more for it.")
def sweep(file: str, overrides: tuple[str, ...], smoke: bool, name: str | None, add_trials: int | None) -> int:
    """Run the sweep of FILE; ends with the leaderboard and the command that promotes the winner."""
    from ftlib.errors import ConfigError, InputError

    _check_name(name)
    if add_trials is not None:
        if name is not None:
            raise InputError(
                "--as belongs to a new run: 'ftlib promote RUN --as NAME' promotes the winner of this one."
            )
        return _add_trials(file, add_trials)
    experiment = load(file, overrides, smoke)
    if experiment.sweep is None:
        raise ConfigError(f"{file}: there is no sweep section: add one, or use 'ftlib train {shlex.quote(file)}'.")
    return tell(start(experiment, as_written(file, overrides, smoke), TerminalListener()), name)


def _check_name(name: str | None) -> None:
    """Raises InputError for a name that the registry does not take, before anything is trained."""
    from ftlib.registry import registry

    if name is not None:
        registry.check_name(name)


@click.command()
@RUN
@click.option("--trust", is_flag=True, help="Load a run that was made elsewhere: it can run any code of its maker's.")
def resume(run: str, trust: bool) -> int:
    """Go on with RUN after a crash, a Ctrl-C or a preemption. Finished trials are not run again."""
    from ftlib.config import Experiment
    from ftlib.run.remote_run import open_run

    opened = open_run(run)
    experiment = Experiment.parse(opened.experiment, f"{opened.path}/{RESOLVED}")
    return tell(go_on(experiment, opened, TerminalListener(), trust))


@click.group()
def trial() -> None:
    """Steer a running sweep, from any terminal: stop, resume, clone or boost one of its trials."""


@trial.command()
@RUN
@TRIAL
def stop(run: str, trial: str) -> None:
    """Stop TRIAL of RUN where it stands; what it has learned is kept."""
    _steer(run, "stop", trial)


@trial.command("resume")
@RUN
@TRIAL
def resume_trial(run: str, trial: str) -> None:
    """Continue the stopped TRIAL of RUN; the scheduler does not stop it again."""
    _steer(run, "resume", trial)


@trial.command()
@RUN
@TRIAL
@OVERRIDES
def clone(run: str, trial: str, overrides: tuple[str, ...]) -> None:
    """Add one trial to RUN: TRIAL with other values, from its weights where its shape stays the same."""
    _steer(run, "clone", trial, overrides)


@trial.command()
@RUN
@TRIAL
@OVERRIDES
def boost(run: str, trial: str, overrides: tuple[str, ...]) -> None:
    """Train TRIAL of RUN to its end whatever the scheduler says, or longer: train.num_train_epochs=6"""
    _steer(run, "boost", trial, overrides)


def _steer(
    run: str, deed: Literal["stop", "resume", "clone", "boost"], trial: str, overrides: Iterable[str] = ()
) -> None:
    from ftlib.config.loader import parse_override
    from ftlib.run.commands import Command, ask
    from ftlib.run.directory import Run

    changes = dict(parse_override(override) for override in overrides)
    echo(ask(Run.open(run), Command(deed, trial, changes)))


def _add_trials(path: str, count: int) -> int:
    """Adds trials to a run: to one that a driver is working on, or to one that is resumed with them."""
    from ftlib.config import Experiment
    from ftlib.run import signature
    from ftlib.run.commands import Command, ask
    from ftlib.run.directory import Run

    run, command = Run.open(path), Command("add", count=count)
    if run.conducted:
        echo(ask(run, command))
        return 0
    signature.check(run)  # resuming loads what it holds
    experiment = Experiment.parse(run.experiment, f"{run.path}/{RESOLVED}")
    return tell(go_on(experiment, run, TerminalListener(), command=command))


@click.command("leaderboard")
@RUN
@click.option("--csv", "as_csv", is_flag=True, help="Print the CSV instead of the table.")
def show_leaderboard(run: str, as_csv: bool) -> None:
    """The trials of RUN, best first, with the untuned base above them."""
    from ftlib.run.leaderboard import write_leaderboard
    from ftlib.run.leaderboard_text import to_csv, to_table
    from ftlib.run.remote_run import open_run

    board = write_leaderboard(open_run(run))
    if as_csv:
        echo(to_csv(board), nl=False)
    else:
        print_table(to_table(board, width=width()))


@click.command("report")
@RUN
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write it to FILE, not into the run directory.")  # fmt: skip
@click.option("--open", "opened", is_flag=True, help="Open it in a browser.")
def make_report(run: str, out: Path | None, opened: bool) -> None:
    """Write what RUN came to as one HTML page, report.html in its directory, that opens without a network."""
    from ftlib.report.page import write_report
    from ftlib.run.remote_run import open_run

    file = write_report(open_run(run), out)
    echo(str(file))
    if opened:
        click.launch(file.absolute().as_uri())


COMMANDS = (check, methods, train, sweep, resume, trial, show_leaderboard, make_report)
