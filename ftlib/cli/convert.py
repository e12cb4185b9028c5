"""`ftlib convert`: the configuration of another tool, as an experiment."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftlib.driver.terminal import echo

if TYPE_CHECKING:
    from ftlib.convert import Conversion

TOOLS = ("axolotl", "llama_factory", "trl", "torchtune", "unsloth")
METHODS = ("sft", "dpo", "kto", "reward", "grpo", "rloo")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The file to write; by default NAME.ftlib.yaml here."
)
@click.option("--from", "tool", type=click.Choice(TOOLS), help="The tool that FILE is of; found by its keys.")
@click.option("--gpus", type=click.IntRange(min=1), help="On how many GPUs that tool trained; by default one.")
@click.option("--method", type=click.Choice(METHODS), help="For trl: the subcommand that FILE is for.")
@click.option("--dataset-info", type=click.Path(path_type=Path), help="For LLaMA-Factory: its dataset_info.json.")
@click.option("--accept-refused", is_flag=True, help="Exit with 0 although keys are refused.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def convert(
    file: Path,
    out: Path | None,
    tool: str | None,
    gpus: int | None,
    method: str | None,
    dataset_info: Path | None,
    accept_refused: bool,
    force: bool,
) -> None:
    """Write an experiment from FILE: a configuration of Axolotl, LLaMA-Factory, TRL or torchtune (YAML), or a script or
    notebook of Unsloth's.

    Each key of FILE is in a comment of the experiment: where it went, why it may go, or why it is refused. Where a key
    is refused, the experiment is written without it, and the command exits with 2. A script is read, and never run.
    """
    from ftlib.cli.begin import write_schema
    from ftlib.convert import Asked, written
    from ftlib.convert import convert as converted
    from ftlib.errors import InputError
    from ftlib.files.atomic import write_text

    target = out or Path(f"{file.stem}.ftlib.yaml")
    if target.exists() and not force:
        raise InputError(f"{target} is there already: --force writes over it, --out names another file.")
    conversion = converted(file, tool, Asked(gpus, method, dataset_info))
    head = f"# yaml-language-server: $schema={write_schema()}"
    write_text(target, written.text(conversion, file.name, head))
    _tell(conversion)
    echo(f"wrote {target}; next:\n  ftlib check {shlex.quote(str(target))}")
    if conversion.refused and not accept_refused:
        raise InputError(
            f"{file}: {len(conversion.refused)} keys are refused, and {target} is without them: see above. "
            "--accept-refused takes it so."
        )


def _tell(conversion: Conversion) -> None:
    """What a person should read: the keys that are refused, and those whose meaning hangs on more than the file."""
    from ftlib.convert.written import plain

    counts = {kind: sum(fate.kind == kind for fate in conversion.fates) for kind in ("mapped", "harmless", "refused")}
    echo(f"{conversion.tool}: " + ", ".join(f"{count} keys {kind}" for kind, count in counts.items()))
    for fate in conversion.fates:
        if fate.kind == "refused":
            echo(f"refused:    {plain(fate.key)}: {fate.text}")
        elif fate.look:
            echo(f"look:       {plain(fate.key)}: {fate.text}")


COMMANDS = (convert,)
