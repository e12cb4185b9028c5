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
    from ftlib.export.formats import USES

    done = export_winner(name, to, out, say, dtype, rows, trust)
    echo(f"exported to {done.folder}\nuse it:  {USES[to]}")


@click.command("push")
@click.argument("what", metavar="NAME", shell_complete=complete.names)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--to", default="merged", show_default=True, metavar="FORMAT", help="As for ftlib export.")
@click.option("--dtype", metavar="D", help="As for ftlib export.")
@click.option("--license", "licence", metavar="NAME", help="The licence of its base, where nobody else says it.")
@click.option("--public", is_flag=True, help="Let everybody see it. Default: private.")
@TRUST
def push_winner(
    what: str, repo: str, to: str, dtype: str | None, licence: str | None, public: bool, trust: bool
) -> None:
    """Bring NAME, or a folder that ftlib export has made, to the Hugging Face Hub: private, unless --public.

    The same command goes on where a cut one has ended. The token is HF_TOKEN, or that of 'hf auth login'.
    """
    from ftlib.driver.export import push_winner

    echo(f"pushed to {push_winner(what, repo, to, say, dtype, licence, public, trust)}")


@click.command("setup")
@click.argument("program", metavar="PROGRAM")
def set_up(program: str) -> None:
    """Make the environment of a PROGRAM that does not go beside ftlib: llama-cpp (for gguf and ollama)."""
    from ftlib.export.environments import ENVIRONMENTS, set_up

    if program in ENVIRONMENTS:
        say(f"setting up {program}: {ENVIRONMENTS[program].told}")
    echo(f"{program} is in {set_up(program).parents[1]}")


COMMANDS = (export_winner, push_winner, set_up)
