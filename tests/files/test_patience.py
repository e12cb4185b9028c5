"""Storage that is full or away for a while is waited for; anything else is raised at once."""

import errno
from pathlib import Path

import pytest

from ftlib.errors import StorageError
from ftlib.files import patience
from ftlib.files.patience import patiently, storage_trouble


def test_a_disk_that_is_freed_in_time_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    tries = [OSError(errno.ENOSPC, ""), OSError(errno.ESTALE, ""), None]

    def write() -> str:
        trouble = tries.pop(0)
        if trouble is not None:
            raise trouble
        return "written"

    assert patiently(write, Path("x")) == "written"


def test_one_that_stays_full_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SECONDS", 0.05)
    monkeypatch.setattr(patience, "PAUSE", 0.01)

    def write() -> None:
        with Path("/dev/full").open("w") as file:
            file.write("x" * 9999)

    with pytest.raises(
        StorageError, match=r"storage: runs/x cannot be written \(No space left on device\): free space"
    ):
        patiently(write, Path("runs/x"))


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        patiently(lambda: Path("/none/x").write_text(""), Path("x"))


def test_what_the_libraries_wrap_is_known() -> None:
    of_safetensors = 'Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No space left" }'
    assert storage_trouble(RuntimeError(of_safetensors)) == "No space left on device"
    assert storage_trouble(RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0"))
    assert storage_trouble(RuntimeError("CUDA out of memory")) is None
