"""What is printed: tables that fit, sentences that stand out.

This is the one door to the terminal. Names, reasons and labels of a run can be another's: their control characters are
shown as codes (`plain`), and rich's own marks are text like any other.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import click

from ftlib.run.plain_text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@cache
def _screen() -> type[Console]:
    from rich.console import Console

    class Screen(Console):
        """Rich's console; what it is given as text is text."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(plain(text), **options)

    return Screen


def console(**options: Any) -> Console:
    """rich's console for standard output."""
    return _screen()(markup=False, emoji=False, **options)


def print_table(table: Table) -> None:
    """Prints a table. On a terminal it is as wide as the terminal; into a pipe or a file it goes whole."""
    out = console()
    if not out.is_terminal:
        out = console(width=200)
    out.print(table)


def echo(text: str = "", nl: bool = True, err: bool = False, **style: Any) -> None:
    """Prints a line as it is, in a colour of click's."""
    click.secho(plain(text), nl=nl, err=err, **style)


def width() -> int | None:
    """The width of the terminal in characters; None where there is no terminal."""
    out = console()
    return out.width if out.is_terminal else None


def say(sentence: str) -> None:
    """Prints a line, in yellow where it is a warning."""
    echo(sentence, fg="yellow" if sentence.startswith("warning") else None)
