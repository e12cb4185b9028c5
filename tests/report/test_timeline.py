from pathlib import Path
from typing import Any

from ftlib.report.timeline import stays_of, timeline
from ftlib.run import layout
from ftlib.run.directory import Run
from tests.conftest import write_jsonl
from tests.report.runs import event


def stays(folder: Path, *events: dict[str, Any]) -> list[tuple[str, str, float, float, str]]:
    run = Run.create(folder, "x", "", {"objective": ["eval_loss", "min"]})
    write_jsonl(run.path / layout.EVENTS, [event(0, "created"), *events])
    return [(stay.trial, stay.machine, stay.start, stay.end, stay.how) for stay in stays_of(run)]


def test_a_trial_that_lost_its_machine_has_two_stays(tmp_path: Path) -> None:
    assert stays(
        tmp_path,
        event(1, "host_opened", host=1, node="aaaaaaaaaa"),
        event(1, "host_opened", host=2, node="bbbbbbbbbb"),
        event(2, "trial_started", trial="000", host=1),
        event(5, "trial_preempted", trial="000"),
        event(7, "trial_started", trial="000", host=2),
        event(9, "trial_finished", trial="000"),
    ) == [("000", "aaaaaaaa", 2.0, 5.0, "preempted"), ("000", "bbbbbbbb", 7.0, 9.0, "finished")]


def test_a_killed_driver_ends_stays_where_its_events_end(tmp_path: Path) -> None:
    assert stays(
        tmp_path,
        event(2, "trial_started", trial="000", host=None),
        event(4, "trial_started", trial="001", host=None),
        event(60, "resumed", host="vm", pid=2),
        event(61, "trial_started", trial="000", host=None),
        event(70, "trial_failed", trial="000"),
    ) == [
        ("000", "unknown", 2.0, 4.0, "preempted"),
        ("001", "unknown", 4.0, 4.0, "preempted"),
        ("000", "unknown", 61.0, 70.0, "failed"),
    ]


def test_nothing_started_is_no_section(tmp_path: Path) -> None:
    assert timeline(Run.create(tmp_path, "x", "", {"objective": ["eval_loss", "min"]})) is None


def test_a_free_lane_is_used_again(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "x", "", {"objective": ["eval_loss", "min"]})
    rows = [event(0, "created")]
    for number, (start, end) in enumerate([(1, 5), (1, 9), (5, 8), (8, 9)]):
        rows += [event(start, "trial_started", trial=str(number)), event(end, "trial_finished", trial=str(number))]
    write_jsonl(run.path / layout.EVENTS, sorted(rows, key=lambda row: (row["time"], row["event"])))
    section = timeline(run)
    assert section is not None
    (trace,) = section.charts[0].traces
    assert dict(zip(trace["text"], trace["y"], strict=True)) == {"0": 0, "1": 1, "2": 0, "3": 0}
