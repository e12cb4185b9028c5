"""The commands of dashboards: the live page of this machine's runs, and W&B's."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event

import click

from ftlib.cli import complete
from ftlib.driver.terminal import echo, say


@click.command("wandb")
@click.argument("run", type=click.Path(), shell_complete=complete.runs)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write it to FILE as JSON, and ask no network.")  # fmt: skip
def make_dashboard(run: str, out: Path | None) -> None:
    """Make the dashboard of RUN in W&B: a workspace and a report with the parameters, the curves and the verdict."""
    from ftlib.files.atomic import write_text
    from ftlib.report.wandb_dashboard import dashboard
    from ftlib.run.remote_run import open_run

    made = dashboard(open_run(run), online=out is None)
    if out is not None:
        write_text(out, made.to_json() + "\n")
        echo(f"the dashboard is in {out}")
        return
    workspace, report = made.save()
    echo(f"workspace: {workspace}")
    echo(f"report:    {report}")


@click.command()
@click.argument("place", metavar="[FOLDER|URL]", default=complete.RUNS, type=click.Path())
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Any free one, unless given.")
@click.option("--api-key", envvar="FTLIB_API_KEY", help="Ask for this key. Needed to bind wider than loopback.")
@click.option(
    "--pipelines",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="The folder of pipelines, unless it is pipelines beside the runs.",
)
@click.option("--open", "opened", is_flag=True, help="Open it in a browser.")
def ui(place: str, host: str, port: int, api_key: str | None, pipelines: Path | None, opened: bool) -> None:
    """Show the runs in FOLDER, or at the URL of a storage (s3://BUCKET/...), as a live page, until Ctrl-C: what runs,
    curves, two runs beside each other, and the steps of pipelines.

    Its buttons stop, clone and boost a trial of a running sweep of this machine.
    """
    from ftlib.files.urls import is_url
    from ftlib.report.live_page import served
    from ftlib.run.storage_copy import copied
    from serve.front.connection import Connection

    source = place if is_url(place) else None
    with ExitStack() as stack:
        folder = Path(place) if source is None else stack.enter_context(copied(source, _warn))
        url = stack.enter_context(served(folder, host, port, api_key, http=Connection, url=source, pipelines=pipelines))
        echo(f"the runs in {place}: {url} (Ctrl-C stops)")
        if opened:
            click.launch(url)
        with suppress(KeyboardInterrupt):
            Event().wait()


def _warn(sentence: str) -> None:
    say(f"warning: {sentence}")


COMMANDS = (ui, make_dashboard)
