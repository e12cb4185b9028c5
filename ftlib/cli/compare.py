"""The command of people as judges."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftlib.cli import complete
from ftlib.cli.evaluations import key_env, task_of
from ftlib.driver.terminal import echo, say

if TYPE_CHECKING:
    from ftlib.evaluation.pairs import Pairs


@click.command()
@click.argument("a", type=click.Path(), shell_complete=complete.runs)
@click.argument("b", type=click.Path(), required=False)
@click.argument("file", type=click.Path(), required=False)
@click.option("--max-new-tokens", type=click.IntRange(1, 4096), default=64, show_default=True, metavar="N",
              help="Of models: the longest answer.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Of models: only the first N rows of FILE.")
@click.option("--system", metavar="TEXT", help="Of models: a system message before each question.")
@key_env
@click.option("--trust", is_flag=True, help="Let code run that comes with a model.")
@click.option("--contenders", default="base,winner", show_default=True, metavar="A,B", help="Of a run: whose answers.")
@click.option("--task", metavar="NAME", help="Of a run: the task, where there are several.")
@click.option("--voter", metavar="NAME", help="Who votes; without it, the page asks.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="votes.jsonl", show_default=True,
              metavar="FILE", help="The file of votes. What is in it counts, and is gone on with.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page; any free one, unless given.")
@click.option("--no-browser", is_flag=True, help="Print the page's URL, and open no browser.")
def compare(
    a: str,
    b: str | None,
    file: str | None,
    contenders: str,
    task: str | None,
    voter: str | None,
    out: Path,
    port: int,
    no_browser: bool,
    **asked: Any,
) -> None:
    """Judge the answers of A and B blind, in a page; Ctrl-C prints the win rate with its interval.

    A and B are models, as 'ftlib evaluate' takes them, which answer the questions of FILE first; FILE needs no right
    answers. Or both are files of answers: JSON lines with 'prompt' and 'answer'. Or A alone is a run, whose two
    --contenders are judged. Of several voters, the agreement is printed too.
    """
    from ftlib.evaluation.votes import Booth
    from ftlib.report.compare_page import judged
    from serve.front.connection import Connection

    _check_goes_with(file)
    found = _asked(a, str(b), file, asked) if file is not None else _pairs(a, b, contenders, task)
    booth = Booth(found, out)
    for sentence in _notes(found):
        say(sentence)
    with judged(booth, voter, port, http=Connection) as url:
        echo(f"judge {len(found.open)} pairs at {url} (Ctrl-C ends it and prints the sum)")
        if not no_browser:
            click.launch(url)
        _wait()
    for line in booth.summary().lines():
        echo(line)
    echo(f"the votes are in {out}")


def _check_goes_with(file: str | None) -> None:
    """Raises InputError for an option that says something of the other way to give answers."""
    from ftlib.errors import InputError

    context = click.get_current_context()
    of_run, of_models = ("contenders", "task"), ("max_new_tokens", "limit", "system", "keys", "trust")
    for name in of_models if file is None else of_run:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(one for one in context.command.params if one.name == name).opts[0]
            whose = "models and a FILE: 'ftlib compare MODEL MODEL FILE'" if file is None else "a run alone"
            raise InputError(f"{option} belongs to {whose}.")


def _asked(a: str, b: str, file: str, asked: dict[str, Any]) -> Pairs:
    """The answers that two models give now. Raises FtlibError where one of them gives none."""
    from ftlib.driver.evaluate import ask
    from ftlib.errors import FtlibError, InputError
    from ftlib.evaluation.pairs import pairs_of_task

    if a == b:
        raise InputError(f"{a} is given twice: give two models.")
    keys, trust = asked.pop("keys"), asked.pop("trust")
    say(f"{a} and {b} answer the questions of {file}")
    results = ask((a, b), task_of(file, (), asked), trust, keys)
    if results.failed:
        raise FtlibError(" ".join(results.failed))
    return pairs_of_task(results.tasks[0], a, b)


def _pairs(a: str, b: str | None, contenders: str, task: str | None) -> Pairs:
    from ftlib.errors import InputError
    from ftlib.evaluation.pairs import pairs, pairs_of_run
    from ftlib.run.remote_run import open_run

    if b is None and Path(a).is_file():
        raise InputError(f"{a} is one file of answers: give the other one too, 'ftlib compare {a} B.jsonl'.")
    if b is None:
        return pairs_of_run(open_run(a).path, [name.strip() for name in contenders.split(",")], task)
    given = click.get_current_context().get_parameter_source("contenders")
    if task is not None or given is click.core.ParameterSource.COMMANDLINE:
        raise InputError("--contenders and --task belong to a run: 'ftlib compare RUN --contenders base,winner'.")
    return pairs(a, b)


def _notes(found: Pairs) -> list[str]:
    notes = []
    if found.unpaired:
        notes.append(f"warning: {found.unpaired} answers have no counterpart, and are left out")
    if len(found.open) < len(found.pairs):
        notes.append(f"{len(found.pairs) - len(found.open)} prompts have the same answer twice: nobody is asked")
    return notes


def _wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    from threading import Event

    try:
        while not Event().wait(3600):
            pass
    except KeyboardInterrupt:
        echo()


COMMANDS = (compare,)
