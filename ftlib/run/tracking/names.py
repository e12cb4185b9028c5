"""What things are called in a tracker: `train/loss`, `eval/loss`, `learning_rate`.

W&B neither filters nor plots by keys with dots in them, so a swept parameter is called by the last part of its path.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from ftlib.run.directory import ALL_ROWS, Run

OBJECTIVE = "objective"  # a trial's best evaluation, as the leaderboard has it
STEP = "train/global_step"  # as transformers' own callback calls it
TAKEN = ("trial", "experiment")  # what stands beside the parameters


@dataclass(frozen=True)
class Names:
    """The names of one run. `tasks` are those of its evaluation; `swept` gives the name of each swept path."""

    tasks: tuple[str, ...]
    swept: dict[str, str]

    @classmethod
    def of(cls, run: Run) -> Names:
        """From the resolved experiment of a run."""
        experiment = run.experiment
        tasks = (experiment.get("evaluation") or {}).get("tasks") or []
        space = (experiment.get("sweep") or {}).get("space") or {}
        return cls(tuple(task["name"] for task in tasks), short_names(space))

    def metric(self, name: str) -> str:
        """`loss` is train/loss, `eval_loss` eval/loss, `machine/x` system/x; those of a task keep their name."""
        if name.partition("/")[0] in self.tasks:
            return name
        if name == "step":
            return STEP
        for begun, room in (("eval_", "eval/"), ("machine/", "system/")):
            if name.startswith(begun):
                return room + name.removeprefix(begun)
        return f"train/{name}"

    def row(self, row: dict[str, Any]) -> dict[str, float]:
        """The numbers of a row of `metrics.jsonl` by their names, those on all rows as `eval/loss_all_rows`; lists stay
        there."""
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "time"}
        named = {self.metric(name): value for name, value in numbers.items()}
        whole = row.get(ALL_ROWS) or {}
        numbers = {name: value for name, value in whole.items() if isinstance(value, int | float) and name != "step"}
        return named | {f"{self.metric(name)}_{ALL_ROWS}": value for name, value in numbers.items()}

    def parameters(self, params: dict[str, Any]) -> dict[str, Any]:
        """A trial's point by plain names; what a person changed beside the space comes after it."""
        changed = short_names([path for path in params if path not in self.swept], self.swept.values())
        names = self.swept | changed
        return {names[path]: value for path, value in params.items()}


def short_names(paths: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """The last part of each dotted path; where that is taken, or two end alike, as much of the path as tells them
    apart, joined by `_`."""
    ends = {path: _ends(path) for path in paths}
    names = {}
    for path, own in ends.items():
        others = {end for other, its in ends.items() if other != path for end in its}
        names[path] = next((end for end in own if end not in {*others, *taken, *TAKEN}), own[-1])
    return names


def _ends(path: str) -> list[str]:
    """Of `a.b.c`: c, b_c, a_b_c."""
    parts = path.split(".")
    return ["_".join(parts[-count:]) for count in range(1, len(parts) + 1)]
