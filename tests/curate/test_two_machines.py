"""A recipe on a cluster of two machines, one of which dies: the rows are those of one machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ftlib.driver.data_build import build_data
from tests.support.machines import machines, wait_until

FILES = 60


@pytest.mark.matrix
def test_a_machine_that_dies_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_REGISTRY", str(tmp_path / "alone"))
    for number in range(FILES):
        lines = [f"text {number * 7 + line} of a file that is read,{'ab'[line % 2]}" for line in range(200)]
        (tmp_path / f"{number:02}.csv").write_text("\n".join(["text,label", *lines]))
    recipe = {
        "name": "two",
        "from": [{"csv": str(tmp_path / "*.csv")}],
        "steps": ["clean", "dedupe", {"balance": {"at_most": "1x"}}, {"split": {"test": 0.1}}],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    alone = build_data(str(tmp_path / "r.yaml"), [f"storage={tmp_path}/one"], workers=1).version
    with machines(2) as cluster:
        settings = [f"storage={tmp_path}/two"]
        process = cluster.start("data", "build", tmp_path / "r.yaml", *settings, FTLIB_REGISTRY=str(tmp_path / "two"))
        wait_until(lambda: len(list((tmp_path / "two").rglob("*.parquet"))) >= FILES, process)
        cluster.kill(cluster.nodes[0])
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    told = json.loads((tmp_path / "two" / ".data" / "two" / "1" / "manifest.json").read_text())
    assert told["hash"] == alone.hash
