"""What travels with a job, and what is refused before anything is sent."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment
from ftlib.errors import ConfigError
from ftlib.remote import parcel
from ftlib.remote.parcel import differing, make_parcel
from ftlib.run.context import versions


def test_the_code_in_it_runs_without_an_installed_ftlib(tree: dict[str, Any], tmp_path: Path) -> None:
    make_parcel(Experiment.parse(tree).anchored(), "name: colours\n").write(tmp_path / "p.zip")
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        archive.extractall(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("__pycache__"))
    program = (
        "import json, pathlib, ftlib, ftlib.remote.entrypoint, serve; from ftlib.run.context import versions;"
        "from ftlib.config import Experiment; from ftlib.data.read import find_source;"
        "e = Experiment.parse(json.loads(pathlib.Path('experiment.json').read_text())).anchored();"
        "print(ftlib.__file__, versions()['ftlib'], find_source('train', e.data).files[0][1], e.model.name_or_path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    )
    places = done.stdout.split()
    assert places[1] == versions()["ftlib"]
    assert all(place.startswith(str(tmp_path / "out")) for place in (places[0], places[2], places[3]))
    told = json.loads((tmp_path / "out" / "parcel.json").read_text())
    assert told["versions"] == versions()
    assert set(told["inputs"].values()) == {tree["model"]["name_or_path"], tree["data"]["train"]}


def test_the_same_content_makes_the_same_bytes(tree: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_parcel(Experiment.parse(tree), "x").write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_large_data_must_be_a_url(tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "LIMIT", 2**20)
    big = Path(tree["data"]["train"]).with_name("big.jsonl")
    big.write_bytes(b"x" * (2**20 + 1))
    tree["data"]["train"] = str(big)
    with pytest.raises(ConfigError, match=r"data.train: '.*big.jsonl' \(1 MiB\) is too large .* at most 1 MiB: put it"):
        make_parcel(Experiment.parse(tree), "x")
    big.unlink()


def test_urls_and_hub_names_stay(tree: dict[str, Any]) -> None:
    tree["data"]["train"] = "s3://bucket/train.jsonl"
    tree["model"]["name_or_path"] = "Qwen/Qwen3-0.6B"
    made = make_parcel(Experiment.parse(tree), "x")
    sent = json.loads(made.texts["experiment.json"])
    assert sent["data"]["train"] == "s3://bucket/train.jsonl"
    assert sent["model"]["name_or_path"] == "Qwen/Qwen3-0.6B"
    assert made.inputs == {}


def test_a_file_that_is_not_here_is_said_here(tree: dict[str, Any]) -> None:
    tree["data"]["train"] = "data/none.jsonl"
    with pytest.raises(ConfigError, match="data.train: there is no 'data/none.jsonl' here to send"):
        make_parcel(Experiment.parse(tree), "x")


def test_an_adapter_without_its_base_is_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    tree["model"]["name_or_path"] = str(tmp_path)
    with pytest.raises(ConfigError, match="is an adapter, whose base stays here"):
        make_parcel(Experiment.parse(tree), "x")


def test_other_versions_are_named_and_builds_do_not_count() -> None:
    sent = {"torch": "2.13.0", "ray": "2.60.0", "trl": "1.16.0"}
    assert differing(sent, {"torch": "2.13.0+cu128", "ray": "2.60.0", "trl": "1.16.0"}) == []
    assert differing(sent, {"torch": "2.12.0", "ray": "2.60.0"}) == [
        "torch 2.12.0 instead of 2.13.0",
        "trl missing instead of 1.16.0",
    ]
