"""The command that makes one model of several, or of an adapter and its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ftlib.cli import complete
from ftlib.cli.winners import TRUST
from ftlib.driver.terminal import echo

HOW = """Merge all MODELs into one: linear, svd, ties, dare_linear, dare_ties, magnitude_prune, each of these with _svd;
of whole models linear, slerp, task_arithmetic."""


def _methods(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    from ftlib.config.merging import OF_ADAPTERS, OF_MODELS  # here, since `ftlib --help` imports no pydantic

    return [name for name in dict.fromkeys((*OF_ADAPTERS, *OF_MODELS)) if name.startswith(incomplete)]


def _numbers(context: click.Context, option: click.Parameter, given: str | None) -> list[float] | None:
    """`0.5,0.5` as numbers."""
    if given is None:
        return None
    try:
        return [float(number) for number in given.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{given}' is no list of numbers, as in 0.5,0.5.") from None


@click.command("merge")
@click.argument("models", nargs=-1, required=True, metavar="MODEL... [OUT]", shell_complete=complete.names)
@click.option("--method", metavar="METHOD", shell_complete=_methods, help=HOW)
@click.option("--weights", callback=_numbers, metavar="X,Y,...", help="A number for each MODEL. Default: all alike.")
@click.option("--density", type=float, metavar="X", help="The share of numbers that ties, dare and prune keep.  [0.5]")
@click.option("--seed", type=int, metavar="N", help="What dare draws by.  [42]")
@click.option("--base", metavar="MODEL", help="The model that task_arithmetic adds to.")
@click.option("--as", "name", metavar="NAME", help="Make the merged model the next version of NAME.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Write it into FOLDER instead.")
@click.option("--no-gate", is_flag=True, help="Skip the checks of logits and chat template.")
@TRUST
def merge(
    models: tuple[str, ...],
    method: str | None,
    name: str | None,
    out: Path | None,
    no_gate: bool,
    trust: bool,
    **keys: Any,
) -> None:
    """Merge MODELs into one by --method; without it, compute the adapter MODEL into its base, and write it to OUT.

    \b
    ftlib merge registry:support support-merged                                      one adapter, into its base
    ftlib merge registry:a registry:b --method ties --weights 0.6,0.4 --as ab        adapters of one base
    ftlib merge models/a models/b --method slerp -o models/ab                        whole models

    A MODEL is registry:NAME[@N], a run (its best trial), RUN/trials/ID, or a folder.
    """
    from ftlib.errors import InputError

    given = {key: value for key, value in keys.items() if value is not None}
    if method is None:
        _into_base(models, out, name, given, trust)
        return
    if (name is None) == (out is None):
        raise InputError("say where the merged model goes: --as NAME (the registry), or -o FOLDER.")
    from ftlib.driver.merge import merge_models

    made = merge_models(_merging({"models": list(models), "method": method, **given}), name, out, not no_gate, trust)
    if isinstance(made, Path):
        echo(f"merged into {made}")
    else:
        echo(f"{len(models)} models merged are now {made.id}")
        echo(f"serve it:  ftlib serve {name}")


def _into_base(models: tuple[str, ...], out: Path | None, name: str | None, given: dict[str, Any], trust: bool) -> None:
    """One adapter, into its base."""
    from ftlib.errors import InputError

    if given or name is not None or len(models) > (2 if out is None else 1):
        word = f"--{next(iter(given))}" if given else "--as" if name is not None else f"{len(models)} MODELs"
        raise InputError(f"{word}: say by --method how models are merged; without it, one adapter goes into its base.")
    if out is None and len(models) == 1:
        raise InputError(f"say where the model goes: ftlib merge {models[0]} OUT.")
    from ftlib.driver.merge import into_base

    target = Path(models[1]) if out is None else out
    into_base(models[0], target, trust)
    echo(f"merged into {target}")


def _merging(tree: dict[str, Any]) -> Any:
    """What the options say. Raises InputError for what does not go together."""
    from pydantic import ValidationError

    from ftlib.config.merging import Merging
    from ftlib.config.messages import explain
    from ftlib.errors import InputError

    try:
        return Merging.model_validate(tree)
    except ValidationError as error:
        raise InputError(explain(error, Merging, "merge")) from None


COMMANDS = (merge,)
