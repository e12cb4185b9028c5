"""When each trial was on which machine, and how each of its stays ended, from `events.jsonl`.

Optuna's timeline has one bar a trial and no machine: a trial that loses its machine has several stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftlib.files.json_files import read_json
from ftlib.report.shapes import ACCENT, BAD, MUTED, PAGE, TEXT, WARN, Chart, Line, Section, Table
from ftlib.report.words import count, duration, inert
from ftlib.run.cost import LEFT, SESSION
from ftlib.run.directory import Run
from ftlib.run.layout import PLACE

ENDS = {"finished": ACCENT, "stopped": MUTED, "failed": BAD, "preempted": WARN, "moved": WARN, "running": TEXT}
NAMED = 200  # stays whose trials are written into their bars
UNITS = ((3 * 3600, 3600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))  # from so many seconds on


@dataclass(frozen=True)
class Stay:
    """One trial on one machine, from `start` to `end`, in seconds since the run began."""

    trial: str
    machine: str
    start: float
    end: float
    how: str  # it ended


def timeline(run: Run) -> Section | None:
    """The section, or None where no trial has started."""
    stays = stays_of(run)
    if not stays:
        return None
    machines = list(dict.fromkeys(stay.machine for stay in stays))
    last = max(stay.end for stay in stays)
    trials = len({stay.trial for stay in stays})
    fact = f"{count(trials, 'trial')} ran on {count(len(machines), 'machine')} within {duration(last)}."
    divisor, unit = next((size, name) for least, size, name in UNITS if last >= least)
    lanes, first = _lanes(stays, machines)
    layout = {
        "xaxis": {"title": {"text": f"{unit} since the run began"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "visible": False},
        "annotations": _headings(first),
        "barmode": "overlay",
        "uniformtext": {"mode": "hide", "minsize": 12},
        "showlegend": True,
        "legend": {"yref": "container", "y": 1, "yanchor": "top"},  # above the name of the first machine
        "margin": {"t": 66},
    }
    height = min(900, 130 + 26 * (max(lanes) + 1))
    chart = Chart("stays", fact, _traces(stays, lanes, divisor), layout, height, _table(stays))
    return Section("timeline", "Timeline", "A bar is a trial on its machine; its colour says how that ended.", [chart])


def stays_of(run: Run) -> list[Stay]:
    """The stays, in the order in which they began. One that a later session, or the end of the events, cut short ends
    there."""
    events, places = run.events(), _places(run)
    machines = {str(place["node"]): str(place["ip"]) for place in places.values() if "ip" in place}
    nodes: dict[Any, str] = {}
    began: dict[str, tuple[float, str]] = {}
    found: list[Stay] = []
    zero, before = (events[0]["time"] if events else 0.0), 0.0

    def leave(trial: str, at: float, how: str) -> None:
        start, machine = began.pop(trial)
        found.append(Stay(trial, machine, start, max(start, at), how))

    for event in events:
        kind, now, trial = event["event"], event["time"] - zero, str(event.get("trial"))
        if kind in SESSION:
            for left in list(began):
                leave(left, before, "preempted")
        elif kind == "host_opened":
            nodes[event.get("host")] = str(event.get("node"))
        elif kind == "trial_started":
            if trial in began:
                leave(trial, now, "preempted")
            node = nodes.get(event.get("host")) or str(places.get(trial, {}).get("node") or "")  # outside a pack
            began[trial] = now, machines.get(node, node[:8] or "unknown")
        elif kind in LEFT and trial in began:
            leave(trial, now, {"recovered": "failed"}.get(how := kind.removeprefix("trial_"), how))
        before = now
    for left in list(began):
        leave(left, before, "running")
    return sorted(found, key=lambda stay: stay.start)


def _places(run: Run) -> dict[str, dict[str, Any]]:
    """Trial: the machine that it was on last, as it has written it down; only trials that have."""
    told = {trial.id: read_json(trial.path / PLACE) for trial in run.trials()}
    return {trial: place for trial, place in told.items() if isinstance(place, dict) and "node" in place}


def _lanes(stays: list[Stay], machines: list[str]) -> tuple[list[int], dict[str, int]]:
    """The lane of each stay, the first of its machine that is free, and the first lane of each machine. An empty lane
    stands between two machines."""
    lanes, first, below = [0] * len(stays), {}, 0
    for machine in machines:
        first[machine] = below
        free_from: list[float] = []  # of each lane of the machine
        for place, stay in enumerate(stays):
            if stay.machine == machine:
                lane = next((lane for lane, free in enumerate(free_from) if free <= stay.start), len(free_from))
                free_from[lane : lane + 1] = [stay.end]
                lanes[place] = below + lane
        below += len(free_from) + 1
    return lanes, first


def _headings(first: dict[str, int]) -> list[dict[str, Any]]:
    """The name of each machine above its first lane."""
    place = {"xref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom", "yshift": 11, "showarrow": False}
    return [{**place, "y": at, "text": f"machine {inert(machine)}"} for machine, at in first.items()]


def _traces(stays: list[Stay], lanes: list[int], divisor: float) -> list[dict[str, Any]]:
    traces = []
    for how in ENDS:
        these = [(stay, lane) for stay, lane in zip(stays, lanes, strict=True) if stay.how == how]
        if these:
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": how,
                    "base": [round(stay.start / divisor, 4) for stay, _ in these],
                    "x": [round((stay.end - stay.start) / divisor, 4) for stay, _ in these],
                    "width": 0.85,
                    "y": [lane for _, lane in these],
                    "text": [inert(stay.trial) for stay, _ in these] if len(stays) <= NAMED else None,
                    "textposition": "inside",
                    "insidetextanchor": "start",
                    "constraintext": "none",
                    "textangle": 0,
                    "hovertext": [inert(f"{stay.trial} on {stay.machine}: {how}") for stay, _ in these],
                    "hovertemplate": "%{hovertext}<extra></extra>",
                    "marker": {"color": ENDS[how], "line": {"color": PAGE, "width": 1}},
                    "textfont": {"color": PAGE, "size": 12},
                }
            )
    return traces


def _table(stays: list[Stay]) -> Table:
    lines = [
        Line([stay.trial, stay.machine, duration(stay.start), duration(stay.end - stay.start), stay.how])
        for stay in stays
    ]
    columns = ["Trial", "Machine", "Began after", "Took", "Ended"]
    return Table("Stays of trials on machines", columns, lines, frozenset([2, 3]))
