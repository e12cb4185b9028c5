"""What attackers can do: write into a bucket, hand over a run directory, send an archive."""

from __future__ import annotations

import http.client
import os
import secrets
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftlib.files import object_store
from ftlib.files.atomic import write_json
from ftlib.run.directory import Run, Trial
from tests.remote.conftest import free_ports
from tests.support.stores import BUCKET, s3_here

KEY = "model.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.fixture(scope="package")
def bucket() -> Iterator[str]:
    """Of a real S3-compatible server."""
    with s3_here(*free_ports(1)):
        yield f"s3://{BUCKET}"


@pytest.fixture
def url(bucket: str) -> str:
    """A place in it that only this test knows."""
    return f"{bucket}/{secrets.token_hex(4)}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of its own: key, registry and caches."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(storage_place: str, root: Path, **resolved: Any) -> Run:
    """A run of one finished trial, as this user's own driver leaves it."""
    told = {"experiment": {"name": "x", "storage": storage_place}, "objective": ["eval_loss", "min"], **resolved}
    run = Run.create(root, "x", "name: x\n", told)
    trial = run.trial("000")
    write_json(trial.path / "params.json", {"train.learning_rate": 0.1})
    write_json(trial.path / "point.json", {"train.learning_rate": 0.1})
    (trial.path / "metrics.jsonl").write_text(
        '{"step": 3, "tokens": 30, "seconds": 1.0, "progress": 1.0, "eval_loss": 2.0}\n'
    )
    weights(trial)
    trial.set_state("finished")
    (run.path / "tune").mkdir()
    (run.path / "tune" / "state.json").write_text("{}")
    return run


def weights(trial: Trial, b: float = 0.5, **manifest: Any) -> Path:
    """A LoRA of one matrix pair."""
    folder = trial.path / "adapter"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {KEY.format("A"): np.ones((2, 4), "f4"), KEY.format("B"): np.full((4, 2), b, "f4")}
    save_file(tensors, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 2})
    write_json(trial.path / "manifest.json", {"kind": "adapter", "step": 3, "metrics": {"eval_loss": 2.0}, **manifest})
    return folder


def put(url: str, text: str | bytes) -> None:
    """Writes an object whatever its name: AWS's client would make `a/../b` to `b`, and an attacker's own does not."""
    body = text if isinstance(text, bytes) else text.encode()
    if not {"", ".", ".."} & set(url.removeprefix("s3://").split("/")):
        object_store.put_bytes(body, url)
        return
    server = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc
    connection = http.client.HTTPConnection(server, timeout=10)
    connection.request("PUT", "/" + urllib.parse.quote(url.removeprefix("s3://")).replace("..", "%2E%2E"), body=body)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
