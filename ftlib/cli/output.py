"""What is printed: tables that fit, sentences that stand out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """Standard output."""
    from rich.console import Console

    return Console()


def print_table(table: Table) -> None:
    """Into a pipe or a file a table goes whole; on a terminal it is as wide as that."""
    from rich.console import Console

    out = Console()
    if not out.is_terminal:
        out = Console(width=200)
    out.print(table)


def width() -> int | None:
    """Of the terminal; None where there is none."""
    out = console()
    return out.width if out.is_terminal else None


def say(sentence: str) -> None:
    """A line, in yellow where it is a warning."""
    click.secho(sentence, fg="yellow" if sentence.startswith("warning") else None)
