"""A run as one tar and back: what is in it, and what is not unpacked."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ftlib.errors import FtlibError
from ftlib.files.atomic import replace_directory
from ftlib.run.archive import read_archive, write_archive
from ftlib.run.directory import Run
from ftlib.run.leaderboard import leaderboard


@pytest.fixture
def run(swept: tuple[Run, str], tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(swept[0].path, tmp_path / "there" / swept[0].name)))


@pytest.mark.parametrize(("weights", "count"), [("all", 4), ("best", 1), ("none", 0)])
def test_there_and_back(run: Run, tmp_path: Path, weights: str, count: int) -> None:
    told = write_archive(run, tmp_path / "run.tar", weights)
    back = read_archive(tmp_path / "run.tar", told["sha256"], tmp_path / "here" / run.name)
    assert leaderboard(back) == leaderboard(run)
    kept = [trial for trial in back.trials() if trial.weights is not None]
    assert len(kept) == count
    assert all((trial.path / "adapter" / "adapter_model.safetensors").stat().st_nlink == 1 for trial in kept)
    best = leaderboard(run).best
    assert best is not None
    if weights == "best":
        assert [trial.id for trial in kept] == [best.trial]
    inside = {path.relative_to(back.path).parts[0] for path in back.path.rglob("*") if path.is_file()}
    assert not inside & {"tune", "wandb", "train", ".lock"}
    assert not list(back.path.rglob("checkpoint"))


def test_paths_of_the_cluster_become_those_of_the_desk(run: Run, tmp_path: Path) -> None:
    base = tmp_path / "my base"
    base.mkdir()
    resolved = run.resolved | {
        "parcel": {"root": "/cluster/pkg", "inputs": {"inputs/ab-base": str(base), "x": "/gone"}}
    }
    (run.path / "resolved.json").write_text(json.dumps(resolved))
    manifest = {"base": {"name_or_path": "/cluster/pkg/inputs/ab-base"}, "other": "/cluster/pkg/x"}
    (run.trials()[0].path / "manifest.json").write_text(json.dumps(manifest))
    told = write_archive(run, tmp_path / "run.tar", "none")
    back = read_archive(tmp_path / "run.tar", told["sha256"], tmp_path / "here" / run.name)
    assert back.trials()[0].manifest == {"base": {"name_or_path": str(base)}, "other": "/cluster/pkg/x"}


def test_a_damaged_or_foreign_tar_is_not_unpacked(run: Run, tmp_path: Path) -> None:
    told = write_archive(run, tmp_path / "run.tar", "none")
    (tmp_path / "run.tar").write_bytes((tmp_path / "run.tar").read_bytes()[:-2048])
    with pytest.raises(FtlibError, match="damaged or cut short"):
        read_archive(tmp_path / "run.tar", told["sha256"], tmp_path / "here")
    for name in ("../outside", "/outside"):
        with tarfile.open(tmp_path / "bad.tar", "w") as out:
            out.addfile(tarfile.TarInfo(name), io.BytesIO())
        digest = hashlib.sha256((tmp_path / "bad.tar").read_bytes()).hexdigest()
        with pytest.raises(FtlibError, match="leads out of its folder|is an absolute path"):
            read_archive(tmp_path / "bad.tar", digest, tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_weights_that_are_replaced_meanwhile_come_whole(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial saves again while the archive is written: what comes is one state, not a mixture."""
    trial, saved = run.trials()[0], 0
    real = shutil.copytree

    def copytree(source: Path, target: Path, **options: Any) -> Any:
        nonlocal saved
        copied = real(source, target, **options)
        if saved < 2 and Path(source).name == "adapter":
            saved += 1
            real(source, trial.path / "next")
            for file in (trial.path / "next").iterdir():
                file.write_bytes(b"state %d" % saved)
            replace_directory(trial.path / "next", trial.path / "adapter")
        return copied

    monkeypatch.setattr(shutil, "copytree", copytree)
    told = write_archive(run, tmp_path / "run.tar", "all")
    back = read_archive(tmp_path / "run.tar", told["sha256"], tmp_path / "here" / run.name)
    assert {file.read_bytes() for file in (back.trial(trial.id).path / "adapter").iterdir()} == {b"state 2"}
    assert not list(run.path.glob(".pull-*"))
