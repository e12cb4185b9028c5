"""`ftlib data build` and what stands beside it: recipes that make data, and the versions that they have made."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftlib.cli.data import data
from ftlib.driver.terminal import echo, print_table

if TYPE_CHECKING:
    from ftlib.registry.data_versions import DataVersion


@data.command("build")
@click.argument("recipe", type=click.Path())
@click.argument("overrides", nargs=-1)
@click.option("--workers", type=click.IntRange(1), help="Processes that work at once; by default one a core.")
@click.option("--dry-run", is_flag=True, help="Say what models would be asked, and what it costs. Ask none.")
def build(recipe: str, overrides: tuple[str, ...], workers: int | None, dry_run: bool) -> None:
    """Do RECIPE, and keep its rows as the next version of its name. What was done before is not done again: after a
    kill, call it again."""
    from ftlib.driver.data_build import build_data, expected
    from ftlib.driver.terminal_listener import TerminalListener

    if dry_run:
        for sentence in expected(recipe, overrides, workers, TerminalListener()):
            echo(sentence)
        return
    built = build_data(recipe, overrides, workers, TerminalListener())
    _print_counts(built.version)
    echo(f"{'wrote' if built.is_new else 'nothing has changed:'} data:{built.version.id} ({_rows(built.version)})")
    echo(f"what was dropped and changed: {built.notes}")
    echo(f"next: data: {{train: data:{built.version.name}}} in an experiment")


@data.command("list")
def list_data() -> None:
    """List the data of the registry."""
    from rich.table import Table

    from ftlib.registry import data_versions

    table = Table("data", "rows", "built", "hash", box=None)
    names = data_versions.names()
    for name in names:
        for version in data_versions.versions(name):
            told = version.manifest
            table.add_row(f"data:{version.id}", _rows(version), str(told.get("built", "")), version.hash[:12])
    if not names:
        echo("there is no data yet: ftlib data build RECIPE makes some")
        return
    print_table(table)


@data.command("show")
@click.argument("name")
@click.option("--rows", type=click.IntRange(0), default=3, help="How many rows are printed.")
@click.option("--dropped", help="Print rows that this step of the newest build dropped, with the reason.")
def show(name: str, rows: int, dropped: str | None) -> None:
    """Show what a version is (NAME or NAME@NUMBER): its steps, its sources, its first rows."""
    from ftlib.registry.data_versions import resolve

    version = resolve(name)
    if dropped is not None:
        _print_dropped(version, dropped, rows)
        return
    told = version.manifest
    echo(f"data:{version.id}  {_rows(version)}  {told.get('built', '')}  {version.hash[:12]}  {version.path}")
    _print_counts(version)
    for source in told.get("sources", []):
        licence = source.get("license") or "licence not said"
        echo(f"from {source['file']} ({source['kind']}, {licence}) {str(source['sha256'])[:12]}")
    file = version.file("train")
    if file is not None:
        with file.open(encoding="utf-8") as lines:
            for line, _ in zip(lines, range(rows), strict=False):
                echo(line.rstrip("\n"))


@data.command("diff")
@click.argument("old")
@click.argument("new")
def diff(old: str, new: str) -> None:
    """Say what NEW has that OLD has not: rows by their content, and what the steps did differently."""
    from ftlib.registry.data_diff import difference
    from ftlib.registry.data_versions import resolve

    for sentence in difference(resolve(old), resolve(new)):
        echo(sentence)


@data.command("schema")
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors that complete and check YAML."""
    from ftlib.config.recipe.schema import recipe_schema

    echo(json.dumps(recipe_schema(), indent=2))


def _rows(version: DataVersion) -> str:
    files = version.manifest["data"]
    return ", ".join(f"{files[name]['rows']:,} {name.removesuffix('.jsonl')}" for name in files)


def _print_counts(version: DataVersion) -> None:
    from rich.table import Table

    table = Table("step", "in", "out", "dropped", "changed", box=None)
    for key, told in version.manifest.get("counts", {}).items():
        table.add_row(key, f"{told['in']:,}", f"{told['out']:,}", _reasons(told["dropped"]), _reasons(told["changed"]))
    print_table(table)


def _reasons(counts: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))


def _print_dropped(version: DataVersion, step: str, rows: int) -> None:
    import pyarrow.parquet as pq

    from ftlib.driver.data_build import notes_of
    from ftlib.errors import InputError, nearest

    folder = notes_of(version.name) / "dropped"
    file = folder / f"{step}.parquet"
    there = sorted(path.stem for path in folder.glob("*.parquet"))
    if step not in there:
        raise InputError(
            f"no row is kept that '{step}' has dropped: there is {', '.join(there) or 'none'}.{nearest(step, there)}"
        )
    with pq.ParquetFile(file) as opened:
        for line in next(opened.iter_batches(batch_size=max(1, rows))).to_pylist():
            echo(f"{line['_from']}: {line['reason']}: {line['detail']}  {line['fields']}")
    echo(f"all of them: {shlex.quote(str(Path(file)))}")


COMMANDS = ()  # they are of the group data
