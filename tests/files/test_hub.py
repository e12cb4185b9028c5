"""A Hub that cannot be reached costs one look and one sentence, not minutes of trying."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import rows, write_jsonl

EXPERIMENT = """name: x
method: {type: sft}
model: {name_or_path: %s}
data: {train: %s}
adapter: {type: lora}
train: {max_steps: 3}
"""


def told(folder: Path, model: str, data: str) -> tuple[float, str]:
    """(seconds, what `ftlib check` says) where no Hub answers."""
    (folder / "x.yaml").write_text(EXPERIMENT % (model, data))
    command = [sys.executable, "-m", "ftlib.cli", "check", str(folder / "x.yaml")]
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "hf")}
    environment.pop("HF_HUB_OFFLINE")
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return time.monotonic() - began, done.stdout + done.stderr


def test_a_model_that_cannot_be_fetched_is_one_sentence_at_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", rows(8))
    seconds, said = told(tmp_path, "someone/something", str(tmp_path / "rows.jsonl"))
    assert said.startswith(
        "error: model.name_or_path: 'someone/something' is neither a folder nor a model that the Hub"
    )
    assert said.count("\n") == 1
    assert seconds < 25  # most of it imports; the Hub's client alone tries for thirty


def test_so_are_rows(tmp_path: Path, base: Path) -> None:
    seconds, said = told(tmp_path, str(base), "someone/rows")
    assert said.startswith(
        "error: data.train: 'someone/rows' is neither a file nor a folder, and the Hub did not give it"
    )
    assert said.count("\n") == 1
    assert seconds < 25
