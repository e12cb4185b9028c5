"""The words of `ftlib promote` that are about tasks reach the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib.run.directory import Run

from ..conftest import ftlib


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--if-better-than", "base", "--no-gate"), "which --no-gate skips"),
        (("--margin", "0.1"), "say than whom by --no-worse-than NAME"),
        (("--no-worse-than", "base", "--margin", "-1"), "--margin -1 is none"),
        (("--task", "tickets"), "say with whom"),
        (("--if-better-than", "base", "--task", "tickets"), "has no tasks to compare on: write evaluation:"),
    ],
)
def test_conditions_of_tasks(tmp_path: Path, words: tuple[str, ...], reason: str) -> None:
    tree = {"name": "x", "model": {"name_or_path": "m"}, "data": {"train": "d"}, "method": {"type": "sft"}}
    run = Run.create(tmp_path, "x", "", {"experiment": tree, "objective": ["eval_loss", "min"]})
    run.trial("000").path.mkdir()
    status, output = ftlib("promote", run.path, "000", "--as", "nothing", *words)
    assert (status, reason in output) == (2, True), output
