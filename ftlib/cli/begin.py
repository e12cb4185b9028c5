"""The commands of the first hour: from a file of data to an experiment, and what an editor needs to help with it."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ftlib.driver.terminal import echo

GOALS = ("chat", "classify", "prefer", "distill", "pretrain")


@click.command()
@click.argument("data", type=click.Path())
@click.option("--goal", type=click.Choice(GOALS), help="What is learned; found in the data where it is evident.")
@click.option("--model", help="The base model: a folder, a name on the Hub, registry:NAME or a GGUF file.")
@click.option(
    "--teacher", help="For --goal distill: a model, registry:NAME, or the URL of an OpenAI-compatible server."
)
@click.option("--name", help="The experiment's name; by default the data's.")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write; by default NAME.yaml.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(
    data: str, goal: str | None, model: str | None, teacher: str | None, name: str | None, out: Path | None, force: bool
) -> None:
    """Look at DATA (a file, a folder or a data set on the Hub) and write an experiment for it, ready for 'ftlib
    check'."""
    from ftlib.data.look import look
    from ftlib.driver.draft import draft, formats_of
    from ftlib.errors import InputError
    from ftlib.files.atomic import write_text

    seen = look(data, formats_of(goal))
    drawn = draft(seen, goal=goal, model=model, teacher=teacher, name=name)
    target = out or Path(f"{drawn.name}.yaml")
    if target.exists() and not force:
        raise InputError(f"{target} is there already: --force writes over it, --out names another file.")
    write_text(target, drawn.text(write_schema()))
    for sentence in seen.sentences():
        echo(sentence)
    quoted = shlex.quote(str(target))
    echo(f"wrote {target}; next:\n  ftlib check {quoted}\n  ftlib sweep {quoted}")


def write_schema() -> Path:
    """The schema as a file under FTLIB_HOME, for the line by which an experiment names it to editors."""
    from ftlib.config.schema import json_schema
    from ftlib.files.atomic import write_json
    from ftlib.files.home import home

    path = home() / "experiment.schema.json"
    write_json(path, json_schema())
    return path


@click.command("schema")
@click.option("--markdown", is_flag=True, help="Print docs/keys.md: every key with its type, default and meaning.")
def print_schema(markdown: bool) -> None:
    """Print the JSON Schema of an experiment, for editors that complete and check YAML."""
    import json

    from ftlib.config import reference
    from ftlib.config.schema import json_schema

    if markdown:
        echo(reference.markdown(), nl=False)
        return
    echo(json.dumps(json_schema(), indent=2))


COMMANDS = (init, print_schema)
