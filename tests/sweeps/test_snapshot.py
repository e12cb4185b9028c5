"""Tune's state in the run directory is whole at any moment."""

from pathlib import Path

import pytest

from ftlib.errors import FtlibError
from ftlib.sweeps.snapshot import keep, lay_out

FILES = ("experiment_state-2026.json", "search_gen_state-2026.json", "searcher-state-2026.pkl")


def write(folder: Path, text: str, files: tuple[str, ...] = FILES) -> Path:
    folder.mkdir(exist_ok=True)
    for name in files:
        (folder / name).write_text(text)
    return folder


def test_a_half_written_state_is_replaced_by_the_last_whole_one(tmp_path: Path) -> None:
    tune = write(tmp_path / "tune", "", FILES[:1])  # as Tune leaves it when it is killed
    keep(write(tmp_path / "staging", "first"), tune)
    keep(write(tmp_path / "staging", "second"), tune)
    lay_out(tune)
    assert [(tune / name).read_text() for name in FILES] == ["second"] * 3


def test_killed_between_two_states_the_old_one_counts(tmp_path: Path) -> None:
    tune = tmp_path / "tune"
    keep(write(tmp_path / "staging", "first"), tune)
    (tune / "state").rename(tune / ".state.old")  # the first of two renames
    lay_out(tune)
    assert (tune / FILES[0]).read_text() == "first"


def test_without_a_state_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FtlibError, match="ended before its first trial started: run the experiment again"):
        lay_out(tmp_path / "run" / "tune")
