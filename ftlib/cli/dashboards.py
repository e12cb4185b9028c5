"""The command of dashboards elsewhere: W&B's."""

from __future__ import annotations

from pathlib import Path

import click

from ftlib.cli import complete
from ftlib.driver.terminal import echo


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


COMMANDS = (make_dashboard,)
