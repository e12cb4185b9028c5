"""A Hub that cannot be reached costs one look and one sentence, not minutes of trying."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import rows, write_jsonl

EXPERIMENT = """name: x
method: {type: sft}
model: {name_or_path: %s}
data: {train: %s}
adapter: {type: lora}
train: {max_steps: 3}
"""


# Waiting is counted where it is asked for: how long the process takes says more of the machine than of its patience.
COUNTS_SLEEP = """
import atexit, os, time
slept, own = [0.0], time.sleep
def sleep(seconds):
    slept[0] += seconds
    own(seconds)
time.sleep = sleep
atexit.register(lambda: print(slept[0], file=open(os.environ["SLEPT"], "a")))
"""


def told(folder: Path, model: str, data: str) -> tuple[float, str]:
    """(seconds that it waits, what `ftlib check` says) where no Hub answers."""
    (folder / "x.yaml").write_text(EXPERIMENT % (model, data))
    (folder / "counts").mkdir()
    (folder / "counts" / "sitecustomize.py").write_text(COUNTS_SLEEP)
    command = [sys.executable, "-m", "ftlib.cli", "check", str(folder / "x.yaml")]
    path = os.pathsep.join([str(folder / "counts"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "hf"), "PYTHONPATH": path}
    environment.pop("HF_HUB_OFFLINE")
    done = subprocess.run(
        command, env={**environment, "SLEPT": str(folder / "slept")}, capture_output=True, text=True, check=False
    )
    return sum(map(float, (folder / "slept").read_text().split())), done.stdout + done.stderr


def test_a_model_that_cannot_be_fetched_is_one_sentence_at_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows(8))
    waited, said = told(tmp_path, "someone/something", str(tmp_path / "rows.jsonl"))
    assert said.startswith(
        "error: model.name_or_path: 'someone/something' is neither a folder nor a model that the Hub"
    )
    assert said.count("\n") == 1
    assert waited < 5  # the Hub's client alone tries for thirty seconds


def test_so_are_rows(tmp_path: Path, base: Path) -> None:
    waited, said = told(tmp_path, str(base), "someone/rows")
    assert said.startswith(
        "error: data.train: 'someone/rows' is neither a file nor a folder, and the Hub did not give it"
    )
    assert said.count("\n") == 1
    assert waited < 5
