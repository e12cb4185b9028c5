"""The quickstart: the README's commands, one after another, each timed. `make quickstart` runs it.

    python experiments/quickstart/run.py          on a real chat model: support tickets to JSON
    python experiments/quickstart/run.py tiny     on a small base that it pretrains (experiments/pretrain_tiny)

The data and the runs stay under .cache/quickstart; the registry is $FTLIB_HOME or ~/.ftlib.
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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(".cache/quickstart")
MODEL = Path(".cache/models/smollm2-135m-instruct")


@dataclass(frozen=True)
class Story:
    """What is done, a heading to its commands, and then asked: `right` is the right answer, where there is one."""

    stages: dict[str, list[str]]
    serve: str
    question: str
    right: str | None = None

    @property
    def model(self) -> str:
        return self.serve.split()[-1]


# The README's commands, word for word (a test compares them).
REAL = Story(
    stages={
        "support tickets, and the JSON that is wanted of them": ["python experiments/quickstart/prepare.py"],
        "a sweep of LoRA, and what its winner does better than the base": ["ftlib sweep experiments/quickstart.yaml"],
        "the best trial passes the gate, and has a name": ["ftlib promote .cache/quickstart/runs/tickets --as tickets"],
    },
    serve="ftlib serve tickets",
    question="Hi there, my parcel never came, order no. 55120. I need it today, please hurry!!",
    right='{"category": "delivery", "priority": "high", "order": "55120"}',
)
PRETRAINING = [
    "python experiments/pretrain_tiny/prepare.py",
    "ftlib train experiments/pretrain_tiny/pretrain.yaml",
    "ftlib promote .cache/quickstart/runs/quickstart-base --as quickstart-base",
]
TINY = Story(
    stages={
        "a small Llama is pretrained on the standard library's source": PRETRAINING,
        "a sweep of LoRA over rank, alpha and learning rate": ["ftlib sweep experiments/pretrain_tiny/sweep.yaml"],
        "the best trial passes the gate, and has a name": [
            "ftlib promote .cache/quickstart/runs/docstrings --as docstrings"
        ],
    },
    serve="ftlib serve docstrings",
    question="def read_text(self, encoding=None)",
)


def main(base: str) -> None:
    """Runs the stages and prints what each took."""
    os.chdir(ROOT)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    story = {"real": REAL, "tiny": TINY}.get(base)
    if story is None:
        sys.exit(f"quickstart: there is no base '{base}': BASE=real (the default) or BASE=tiny")
    if story is REAL and not MODEL.is_dir():
        sys.exit(
            f"quickstart: the model is not in {MODEL}, since neither PyPI nor the Hub gave it to 'make install': "
            "'make quickstart BASE=tiny' pretrains a small one instead"
        )
    seconds: dict[str, float] = {}
    there = story is TINY and base_is_promoted()
    for heading, commands in story.stages.items():
        with stage(heading, story, seconds):
            for command in commands:
                if not (there and command in PRETRAINING):
                    run(command)
    with stage("it is served, and asked something new", story, seconds), served(story.serve) as url:
        print(f"\n  {story.question}\n  -> {ask(url, story)}\n")
    told(story)
    print("\n".join(f"{name:62s} {taken:6.1f} s" for name, taken in seconds.items()))
    print(f"{'together':62s} {sum(seconds.values()):6.1f} s")


def told(story: Story) -> None:
    """Prints the verdict of the sweep once more, and where its report is."""
    from ftlib.files.json_files import read_json
    from ftlib.run.directory import Run

    run = Run.open(str(CACHE / "runs" / ("tickets" if story is REAL else "docstrings")))
    verdict = (read_json(run.path / "evaluation.json") or {}).get("verdict")
    print("\n".join(line for line in (verdict, f"the report: {run.path / 'report.html'}") if line) + "\n")


@contextmanager
def stage(name: str, story: Story, seconds: dict[str, float]) -> Iterator[None]:
    """Prints a heading and keeps how long the block took."""
    print(f"\n== {len(seconds) + 1}/{len(story.stages) + 1}  {name}", flush=True)
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
    """Whether an earlier quickstart has left its tiny base: pretraining is done once."""
    from ftlib.registry import registry

    if "quickstart-base" not in registry.names():
        return False
    ours = json.loads((registry.current("quickstart-base").weights / "tokenizer.json").read_text())
    tokenizer = CACHE / "base" / "tokenizer.json"
    return tokenizer.exists() and bool(ours == json.loads(tokenizer.read_text()))


@contextmanager
def served(command: str) -> Iterator[str]:
    """`ftlib serve` on a free port while the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    print(f"$ {command}", flush=True)
    process = subprocess.Popen(words(f"{command} --port {port}"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        print(line)
        if "serving" not in line:
            sys.exit(f"quickstart: '{command}' did not start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # a shell's background job ignores SIGINT, and so do its children
            process.terminate()
            process.wait(timeout=30)


def ask(url: str, story: Story) -> str:
    """The story's question through OpenAI's own client, and the right answer where another came."""
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="none")
    answer = client.chat.completions.create(
        model=story.model, messages=[{"role": "user", "content": story.question}], temperature=0, max_tokens=48
    )
    said = answer.choices[0].message.content or ""
    return said if story.right in (None, said) else f"{said}\n  (it should be {story.right})"


if __name__ == "__main__":
    main(*sys.argv[1:] or ["real"])
