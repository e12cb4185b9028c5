"""The quickstart: the README's commands, one after another, each timed. `make quickstart` runs it.

The generated data, the base and the runs stay under .cache/quickstart; the registry is $FTLIB_HOME or ~/.ftlib.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(".cache/quickstart")
QUESTION = "def read_text(self, encoding=None)"


# The README's commands, word for word (a test compares them).
PREPARE = "python experiments/quickstart/prepare.py"
PRETRAIN = "ftlib train experiments/quickstart/pretrain.yaml"
PROMOTE_BASE = "ftlib promote .cache/quickstart/runs/quickstart-base --as quickstart-base"
SWEEP = "ftlib sweep experiments/quickstart.yaml"
PROMOTE = "ftlib promote .cache/quickstart/runs/docstrings --as docstrings"
SERVE = "ftlib serve docstrings"


def main() -> None:
    """Runs the stages and prints what each took."""
    os.chdir(ROOT)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    seconds: dict[str, float] = {}
    with stage("1/5  data and tokenizer from the standard library's source", seconds):
        if not (CACHE / "base" / "config.json").exists():
            run(PREPARE)
    with stage("2/5  pretrain a small Llama on it", seconds):
        if not base_is_promoted():
            run(PRETRAIN)
            run(PROMOTE_BASE)
    with stage("3/5  sweep LoRA over rank, alpha and learning rate", seconds):
        run(SWEEP)
    with stage("4/5  promote the winner", seconds):
        run(PROMOTE)
    with stage("5/5  serve it and ask", seconds), served() as url:
        print(f"\n  {QUESTION}\n  -> {ask(url, 'docstrings', QUESTION)}\n")
    print("\n".join(f"{name:62s} {taken:6.1f} s" for name, taken in seconds.items()))
    print(f"{'together':62s} {sum(seconds.values()):6.1f} s")


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Prints a heading and keeps how long the block took."""
    print(f"\n== {name}", flush=True)
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def run(command: str) -> None:
    """Runs a command on this terminal; its failure is ours."""
    print(f"$ {command}", flush=True)
    status = subprocess.run(words(command), check=False).returncode
    if status:
        sys.exit(f"quickstart: '{command}' ended with status {status}")


def words(command: str) -> list[str]:
    """The command with this Python and this ftlib, whether or not the environment is activated."""
    program, *rest = shlex.split(command)
    return [*{"python": [sys.executable], "ftlib": [sys.executable, "-m", "ftlib.cli"]}[program], *rest]


def base_is_promoted() -> bool:
    """Whether an earlier quickstart has left its base: pretraining is done once."""
    from ftlib.registry import registry

    if "quickstart-base" not in registry.names():
        return False
    ours = json.loads((registry.current("quickstart-base").weights / "tokenizer.json").read_text())
    return bool(ours == json.loads((CACHE / "base" / "tokenizer.json").read_text()))


@contextmanager
def served() -> Iterator[str]:
    """`ftlib serve` on a free port while the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(words(f"{SERVE} --port {port}"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        print(line)
        if "serving" not in line:
            sys.exit(f"quickstart: '{SERVE}' did not start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # a shell's background job ignores SIGINT, and so do its children
            process.terminate()
            process.wait(timeout=30)


def ask(url: str, model: str, question: str) -> str:
    """One question through OpenAI's own client."""
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none")
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=48
    )
    return answer.choices[0].message.content or ""


if __name__ == "__main__":
    main()
