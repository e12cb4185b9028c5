"""The commands that bring a winner out: into another format, another program, the Hub."""

from __future__ import annotations

from pathlib import Path

import click

from ftlib.cli import complete
from ftlib.cli.winners import TRUST
from ftlib.driver.terminal import echo, say

FORMATS = ("merged", "peft", "vllm", "gguf", "gguf-adapter", "ollama", "int8", "int4", "fp8", "onnx")


@click.command("export")
@click.argument("name", shell_complete=complete.names)
@click.option("--to", required=True, metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="A folder that is not there yet. "
              "Default: NAME-FORMAT here.")  # fmt: skip
@click.option("--dtype", metavar="D", help="The numbers that are written: float32, bfloat16 or float16 of merged; f16, "
              "q8_0, q4_k_m and others of gguf and ollama.")  # fmt: skip
@click.option("--task-rows", "rows", type=click.IntRange(0), default=50, show_default=True, metavar="N",
              help="How many rows of each task the artifact does; 0 for none.")  # fmt: skip
@TRUST
def export_winner(name: str, to: str, out: Path | None, dtype: str | None, rows: int, trust: bool) -> None:
    """Write NAME in another FORMAT, run it there, and keep it only if it still is what was trained.

    NAME is a name of the registry (NAME or NAME@N), a run (its best trial) or RUN/trials/ID.
    """
    from ftlib.driver.export import export_winner

    done = export_winner(name, to, out, say, dtype, rows, trust)
    echo(f"exported to {done.folder}")


COMMANDS = (export_winner,)
