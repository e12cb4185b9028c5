"""The commands: each parses, makes one call, prints. Heavy imports stand inside the commands."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

import click

from ftlib.cli import (
    begin,
    clusters,
    compare,
    complete,
    convert,
    dashboards,
    data,
    evaluations,
    experiments,
    exports,
    merging,
    pipelines,
    rates,
    recipes,
    winners,
)
from ftlib.driver.process import guarded
from ftlib.driver.quiet import quiet_libraries


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ftlib")
@click.option("--debug", is_flag=True, help="Show tracebacks and the libraries' own logs.")
def cli(debug: bool) -> None:
    """One YAML file and one command: from a base model and data to the best fine-tune of it, served.

    Any key of an experiment can be overridden: ftlib sweep x.yaml sweep.num_samples=8 train.learning_rate=1e-4
    """
    if not debug:
        quiet_libraries()


GROUPS = (
    begin,
    convert,
    data,
    recipes,
    experiments,
    rates,
    pipelines,
    evaluations,
    compare,
    winners,
    merging,
    exports,
    dashboards,
    clusters,
    complete,
)
for command in (command for group in GROUPS for command in group.COMMANDS):
    cli.add_command(command)


def program() -> None:
    """The console script: it runs `main` and ends the process at once. Python would take two seconds to take torch and
    other libraries apart."""
    try:
        main()
    except SystemExit as ended:
        with suppress(KeyboardInterrupt, OSError):
            if "ray" in sys.modules:
                import ray

                ray.shutdown()  # as it would be at exit, but without its pause
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)


def main() -> None:
    """Turns every failure into one sentence and an exit status."""
    from ftlib.cluster.interrupt import sigterm_is_ctrl_c

    sigterm_is_ctrl_c()
    guarded(lambda: cli.main(standalone_mode=False), debug="--debug" in sys.argv)
