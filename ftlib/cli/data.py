"""The commands of data: look at a file before anything is trained on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from ftlib.driver.terminal import echo


@click.group()
def data() -> None:
    """Look at data, and make data worth training on."""


@data.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--eval", "evaluation", metavar="FILE", help="Rows of evaluation, which must not stand in FILE.")
@click.option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    metavar="FILE",
    help="Texts of a benchmark, looked for by 13 words in a row; again for more.",
)
@click.option("--model", metavar="NAME", help="Count in tokens of this model, and compare with its window.")
@click.option("--regions", metavar="DE,US", help="Countries whose phone numbers and ids are found as written there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line a FILE, and write no page.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Write the pages there."
)
@click.option("--open", "opened", is_flag=True, help="Open the pages in a browser.")
def report(
    files: tuple[str, ...],
    evaluation: str | None,
    benchmarks: tuple[str, ...],
    model: str | None,
    regions: str | None,
    as_json: bool,
    out: Path | None,
    opened: bool,
) -> None:
    """Look at FILEs and say what a person should look at: duplicates, contradictions, personal data, cut answers.

    A FILE is a file, a folder, or a data set on the Hub. Its page is NAME-report.html here, with the same as JSON
    beside it. The first 100,000 rows are looked at.
    """
    from ftlib.driver.inspect_data import inspected
    from ftlib.report.data_page import write_data_report

    pages = _pages(files, out or Path())
    named = [region for part in (regions or "").split(",") if (region := part.strip())]
    for file, page in zip(files, pages, strict=True):
        found = inspected(file, evaluation, benchmarks, model, named)
        if as_json:
            echo(json.dumps(found.to_json(), ensure_ascii=False))
            continue
        for sentence in found.sentences():
            echo(sentence)
        page.parent.mkdir(parents=True, exist_ok=True)
        beside = write_data_report(found, page)
        echo(f"{page}, and {beside.name} beside it")
        if opened:
            click.launch(page.absolute().as_uri())


def _pages(files: Sequence[str], folder: Path) -> list[Path]:
    """The page of each file. Raises InputError where two would be one."""
    from ftlib.errors import InputError

    pages: dict[Path, str] = {}
    for file in files:
        page = folder / f"{Path(file).stem or Path(file).resolve().stem}-report.html"
        if page in pages:
            raise InputError(f"'{pages[page]}' and '{file}' would both be {page.name}: give one of them, with --out.")
        pages[page] = file
    return list(pages)


COMMANDS = (data,)
