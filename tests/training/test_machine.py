import pytest

from ftlib.training import machine
from ftlib.training.machine import Machine


def test_a_row_of_training_says_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])
    measured = Machine()
    measured.begin(50)  # of a checkpoint
    now[0] = 102.0
    row = measured.row(250, trained=True)
    assert row["machine/tokens_per_second"] == 100.0
    assert 0.05 < row["machine/memory_gib"] < 100
    assert row["machine/cpu_percent"] >= 0
    now[0] = 110.0
    assert measured.row(250, trained=False) == {}  # of an evaluation, whose seconds do not count
    now[0] = 111.0
    assert measured.row(350, trained=True)["machine/tokens_per_second"] == 100.0
