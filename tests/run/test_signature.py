"""Resume loads only what it wrote: a run directory from elsewhere can run any code, so it is refused without
--trust."""

import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftlib.errors import InputError
from ftlib.files.home import home
from ftlib.run import signature
from ftlib.run.directory import Run
from tests.conftest import ftlib


class Attack:
    """What a maker of run directories could put there."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_the_key_is_its_owners_alone() -> None:
    signature.mac("x")
    assert (home() / "key").stat().st_mode & 0o777 == 0o600
    assert len((home() / "key").read_bytes()) == 32


def test_our_own_run_is_ours_and_a_copy_is_not(swept: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = swept
    signature.check(run)
    copied = Run(Path(shutil.copytree(run.path, tmp_path / run.name)))
    with pytest.raises(InputError, match="was not made by you on this machine"):
        signature.check(copied)
    signature.sign(copied)
    signature.check(copied)
    copied.path.chmod(0o777)
    with pytest.raises(InputError):
        signature.check(copied)


def test_another_users_run_is_not_ours(swept: tuple[Run, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    with pytest.raises(InputError):
        signature.check(swept[0])


def hosts_are_gone(within: float = 120) -> bool:
    """Whether no host of a pack is left of this process's Ray."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        mine = [process for process in psutil.Process().children(recursive=True) if process.is_running()]
        if not any(
            "ray::Host" in " ".join(process.cmdline()) for process in mine if process.status() != psutil.STATUS_ZOMBIE
        ):
            return True
        time.sleep(0.2)
    return False


def test_a_foreign_pickle_is_not_loaded_without_trust(swept: tuple[Run, str], tmp_path: Path) -> None:
    run, _ = swept
    mark = tmp_path / "it-ran"
    foreign = Path(shutil.copytree(run.path, tmp_path / run.name))
    (foreign / "trials" / "003" / "status.json").unlink()  # it has not ended: there is something to go on with
    for file in (foreign / "tune").glob("*.pkl"):
        file.write_bytes(pickle.dumps(Attack(mark)))
    for command in (("resume", foreign), ("sweep", foreign, "--add-trials", 1)):
        status, output = ftlib(*command)
        assert (status, output.count("\n")) == (2, 1)
        assert "--trust" in output
        assert not mark.exists()
    assert not (foreign / "commands").exists()
    ftlib("resume", foreign, "--trust")
    assert mark.exists()  # so the refusal is what kept it from running
    assert hosts_are_gone()  # a sweep that cannot begin leaves no process behind
