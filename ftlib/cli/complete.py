"""What the shell proposes after a tab: runs, their trials, names of the registry, keys of an experiment.

A proposal must never fail and never be slow: what cannot be read proposes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ftlib.run.layout import RESOLVED

Words = Callable[[click.Context, click.Parameter, str], list[str]]
RUNS = "runs"  # where runs are, unless a file says otherwise


def _quietly(propose: Words) -> Words:
    @wraps(propose)
    def proposed(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        with suppress(Exception):
            return [word for word in propose(context, parameter, begun) if word.startswith(begun)]
        return []

    return proposed


@_quietly
def runs(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Folders that are runs, the newest first: below what is typed, or in `runs`."""
    typed = Path(begun)
    folder = typed if begun.endswith("/") else typed.parent if begun else Path(RUNS)
    found = sorted(folder.glob(f"*/{RESOLVED}"), key=lambda file: -file.stat().st_mtime)
    below = sorted(f"{entry}/" for entry in folder.iterdir() if entry.is_dir() and any(entry.glob(f"*/{RESOLVED}")))
    return [str(file.parent) for file in found] + below


@_quietly
def trials(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The trials of the run that stands before this word on the command line."""
    from ftlib.run.directory import Run

    return [trial.id for trial in Run.open(context.params["run"]).trials()]


@_quietly
def names(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The names in the registry."""
    from ftlib.registry import registry

    return registry.names()


@_quietly
def keys(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Dotted paths into an experiment, as the beginning of an override."""
    from ftlib.config import Experiment
    from ftlib.config.experiment import NOT_SWEPT
    from ftlib.config.messages import dotted_paths

    paths = list(dict.fromkeys(dotted_paths(Experiment)))
    if begun.startswith("sweep.space."):
        paths = [f"sweep.space.{path}" for path in paths if path.split(".")[0] not in NOT_SWEPT]
    return [f"{path}=" for path in paths]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def print_completion(shell: str) -> None:
    """Print what SHELL must read to complete ftlib's words: put eval "$(ftlib completion bash)" into ~/.bashrc."""
    from click.shell_completion import get_completion_class

    from ftlib.cli import cli

    completion: Any = get_completion_class(shell)
    click.echo(completion(cli, {}, "ftlib", "_FTLIB_COMPLETE").source())


COMMANDS = (print_completion,)
