"""The cluster files: Ray's own validator offline, guarded, priced; and what the doors hand to Ray."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlib.errors import ConfigError
from ftlib.remote import launcher as module
from ftlib.remote.launcher import ClusterFile
from tests.conftest import ftlib
from tests.remote.conftest import ROOT

FILES = ("cluster.yaml", "cluster.gcp.yaml")


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes cluster.yaml with something changed."""

    def write(change: Any) -> Path:
        tree = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        change(tree)
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_ray_accepts(name: str) -> None:
    file = ClusterFile.load(ROOT / name)
    head, *workers = file.node_types
    assert head.resources == {"CPU": 0, "driver": 2}  # no trial fits there, a driver does
    assert not head.spot
    assert [worker.name for worker in workers if worker.spot] == ["gpu-spot"]
    assert not any("driver" in worker.resources for worker in workers if worker.spot)
    assert any("driver" in worker.resources for worker in workers)
    assert all(worker.least == 0 for worker in workers)
    for local in file.tree["file_mounts"].values():
        assert local.startswith("~") or (ROOT / local).exists()


@pytest.mark.parametrize("name", FILES)
def test_ray_and_torch_are_the_pinned_ones(name: str) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    tree = yaml.safe_load((ROOT / name).read_text())
    for image in (tree["docker"]["head_image"], tree["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{pinned['ray']}-py311")
    assert any("-c /home/ray/ftlib/constraints.txt" in command for command in tree["setup_commands"])
    assert f"rayproject/ray:{pinned['ray']}-py311" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_a_misspelled_key_is_one_sentence(written: Any) -> None:
    path = written(lambda tree: tree.update(idle_timeout_minute=3))
    with pytest.raises(ConfigError, match="idle_timeout_minute"):
        ClusterFile.load(path)
    status, output = ftlib("cluster", "price", path)
    assert (status, output.count("\n")) == (2, 1)


def test_a_cluster_without_a_token_is_refused(written: Any) -> None:
    def unguard(tree: dict[str, Any]) -> None:
        starts = tree["worker_start_ray_commands"]
        starts[-1] = starts[-1].replace("RAY_AUTH_MODE=token ", "")

    with pytest.raises(ConfigError, match="worker_start_ray_commands: 'ray start' must run with RAY_AUTH_MODE=token"):
        ClusterFile.load(written(unguard))


def test_an_open_dashboard_is_refused(written: Any) -> None:
    def unguard(tree: dict[str, Any]) -> None:
        starts = tree["head_start_ray_commands"]
        starts[-1] = starts[-1].replace("127.0.0.1", "0.0.0.0")

    with pytest.raises(ConfigError, match="the dashboard must stay on --dashboard-host=127.0.0.1"):
        ClusterFile.load(written(unguard))


def test_the_price_is_a_range(written: Any) -> None:
    status, output = ftlib("cluster", "price", ROOT / "cluster.yaml")
    assert status == 0
    # 12 workers at the most: 2 gpu, then the two kinds at 0.40
    assert "0.20 to 6.16 USD an hour (at most 12 workers together); 4.80 a day while nothing runs" in output
    path = written(lambda tree: (tree.update(max_workers=3), tree["available_node_types"]["cpu"].update(min_workers=1)))
    least, most = ClusterFile.load(path).hourly
    assert least == pytest.approx(0.20 + 0.40)
    assert most == pytest.approx(0.20 + 0.40 + 2 * 0.98)  # the dearest that fit beside it


def test_a_price_that_is_missing_or_misspelled_is_said(written: Any) -> None:
    path = written(lambda tree: tree["metadata"]["prices"].pop("gpu"))
    with pytest.raises(ConfigError, match=r"metadata.prices.gpu: say what such a node costs an hour"):
        _ = ClusterFile.load(path).hourly
    path = written(lambda tree: tree["metadata"]["prices"].update(gpuspot=1))
    with pytest.raises(ConfigError, match="Did you mean 'gpu-spot'"):
        _ = ClusterFile.load(path).hourly


def test_the_doors_hand_over_to_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(
        module.subprocess,
        "run",
        lambda line, **options: called.append([*line[3:], options["env"]["RAY_AUTH_MODE"]]) or done(0),
    )
    file = ROOT / "cluster.yaml"
    assert ftlib("cluster", "up", file, "-y")[0] == 0
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    for command in (["status"], ["down", "-y"], ["dashboard", "--port", "9"]):
        assert ftlib("cluster", command[0], file, *command[1:])[0] == 0
    assert called == [
        ["up", "cluster.yaml", "--yes", "token"],
        ["exec", "cluster.yaml", "RAY_AUTH_MODE=token ray status -v", "token"],
        ["down", "cluster.yaml", "--yes", "token"],
        ["dashboard", "cluster.yaml", "--port", "9", "token"],
    ]
    monkeypatch.setattr(module.subprocess, "run", lambda line, **options: done(1))
    status, output = ftlib("cluster", "down", file, "-y")
    assert status == 1
    assert "'ray down cluster.yaml' failed with status 1" in output


def done(status: int) -> Any:
    class Done:
        returncode = status

    return Done()


def test_a_missing_sdk_is_said() -> None:
    status, output = ftlib("cluster", "status", ROOT / "cluster.yaml")
    assert (status, output) == (1, "error: provider.type is 'aws', which Ray asks through boto3: pip install boto3.\n")
