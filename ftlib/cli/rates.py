"""The command that finds a range of learning rates."""

from __future__ import annotations

from pathlib import Path

import click

from ftlib.cli.experiments import EXPERIMENT, OVERRIDES, SMOKE
from ftlib.driver.load import load
from ftlib.driver.prepare import prepared
from ftlib.driver.terminal import console, echo
from ftlib.driver.terminal_listener import TerminalListener


@click.command("lr-find")
@EXPERIMENT
@OVERRIDES
@SMOKE
@click.option("--from", "low", type=float, metavar="RATE", help="The lowest rate. Default: that of the sweep's range.")
@click.option("--to", "high", type=float, metavar="RATE", help="The highest rate.")
@click.option("--steps", type=click.IntRange(4), metavar="N", help="Steps of each rate. Default: 24.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="lr_find.html", show_default=True,
              metavar="FILE", help="Where the plot goes.")  # fmt: skip
def lr_find(
    file: str,
    overrides: tuple[str, ...],
    smoke: bool,
    low: float | None,
    high: float | None,
    steps: int | None,
    out: Path,
) -> None:
    """Train FILE for a few steps at many learning rates side by side, and print the range that a sweep should try."""
    from ftlib.driver import lr_find as finding

    experiment = load(file, overrides, smoke)
    finding.check(experiment)
    data = prepared(experiment, TerminalListener(), told=False)
    with console().status("trying learning rates") as status:
        found = finding.find(experiment, data, low, high, steps, status.update)
    finding.write_page(found, experiment, out)
    for one in found.tried:
        echo(f"{one.rate:>10.3g}  {'broke' if one.after is None else f'{one.after:.4f}'}")
    echo(f"untuned base {found.tried[0].before:.4f}")
    echo(found.sentence)
    echo(str(out))


COMMANDS = (lr_find,)
