"""The gate by tasks: a trial is promoted only if it does the experiment's tasks better than others, or no worse.

The numbers are those of the run's evaluation.json, where this trial is the winner there and all who are asked about
have done the tasks. Otherwise the tasks are done now, by the copy that is about to be promoted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ftlib.config import EvaluationSection, Experiment
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.evaluation.demands import Demand, Lead, NoLoss, WithinMargin
from ftlib.evaluation.verdict import verdict
from ftlib.files.atomic import write_text
from ftlib.registry import promotion, registry
from ftlib.registry.bases import REGISTRY, base_of
from ftlib.registry.promotion import Decision, Say
from ftlib.registry.version import Version
from ftlib.report.results import WINNER, evaluation_of
from ftlib.run import signature
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import ANSWERS

if TYPE_CHECKING:
    from ftlib.evaluation.results import Results

PROMPTED = ("base", "few_shot", "rag")  # the experiment's base, by how it is asked
MAJORITY, LABELS = "majority", "labels"  # a classifier's baseline, and what its task is called
OF_CLASSIFIERS = (MAJORITY, "base")
MARGIN = 0.02
OF_TRIAL = ("verdict", "tasks", "seeds", "failed", "time")  # what of evaluation.json is about one trial


@dataclass(frozen=True)
class Conditions(promotion.Conditions):
    """What a promotion asks for, of tasks as well. `task` names the one on which the lead is asked for, `margin` is in
    the metric's own unit."""

    if_better_than: str | None = None
    no_worse_than: str | None = None
    margin: float | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        """Raises InputError for conditions that contradict one another."""
        super().__post_init__()
        asked = {"--if-better-than": self.if_better_than, "--no-worse-than": self.no_worse_than}
        flag = next((flag for flag, name in asked.items() if name is not None), None)
        if flag is not None and not self.gate:
            raise InputError(f"{flag} is a check of the gate, which --no-gate skips: leave one of them out.")
        if self.task is not None and flag is None:
            raise InputError("--task says on what to compare: say with whom by --if-better-than or --no-worse-than.")
        if self.margin is not None and self.no_worse_than is None:
            raise InputError("--margin says how much worse is allowed: say than whom by --no-worse-than NAME.")
        if self.margin is not None and not 0 < self.margin < math.inf:
            raise InputError(f"--margin {self.margin:g} is none: give more than 0, 0.02 for two points of a share.")
        if flag is not None and self.if_better_than == self.no_worse_than:
            raise InputError(
                f"--if-better-than {self.if_better_than} asks for more than --no-worse-than: leave it out."
            )

    @property
    def asks_for_tasks(self) -> bool:
        """Whether tasks decide."""
        return self.if_better_than is not None or self.no_worse_than is not None


class TaskGate:
    """What tasks say of one promotion. `evaluation` is what the run knows of the trial on tasks, None for nothing."""

    def __init__(self, run: Run, trial: Trial, conditions: Conditions, say: Say) -> None:
        """Raises InputError, before anything is copied, for tasks and names that are not there."""
        self.run, self.trial, self.conditions, self.say = run, trial, conditions, say
        self.evaluation = known_of(run, trial)
        if conditions.asks_for_tasks:
            self.experiment = Experiment.parse(run.experiment, str(run.path))
            self.classifies = self.experiment.method.head == "sequence_classification"
            self.targets = self._targets()
            list(self._demands())

    def decide(self, staged: Version) -> Decision:
        """What the tasks say of a staged copy, beside the versions that names mean now.

        Raises FtlibError for a trial that does not meet a demand, and for tasks that cannot be done.
        """
        demands = list(dict.fromkeys(self._demands()))
        if self.evaluation is None or not all(_contender(self.evaluation, demand) for demand in demands):
            self.evaluation = self._do(staged, demands)
        looks = [_look(self.evaluation, demand) for demand in demands]
        unmet = [sentence for met, sentence in looks if not met]
        if unmet:
            raise FtlibError(f"trial {self.trial.id} was not promoted: {'; '.join(unmet)}.")
        for _, sentence in looks:
            self.say(f"gate: {sentence}")
        asked = {key: getattr(self.conditions, key) for key in ("if_better_than", "no_worse_than", "margin", "task")}
        return Decision(self.evaluation, {**asked, "found": [sentence for _, sentence in looks]})

    def _demands(self) -> Iterator[Demand]:
        better, no_worse = self.conditions.if_better_than, self.conditions.no_worse_than
        if better is not None:
            rival = self._rival("--if-better-than", better)
            yield from (Lead(task, rival) for task in self.targets)
            yield from self._kept(rival)
        if no_worse is not None:
            rival, margin = self._rival("--no-worse-than", no_worse), self.conditions.margin or MARGIN
            yield from (WithinMargin(task, rival, margin) for task in self.targets)
            yield from self._kept(rival)

    def _kept(self, rival: str) -> Iterator[Demand]:
        """Nothing is forgotten: neither what the base can do, nor what the version can that is compared with."""
        tasks = [task.name for task in self.experiment.evaluation.tasks if task.role == "regression"]
        rivals = ["base"] if rival in PROMPTED else ["base", rival]
        return (NoLoss(task, other) for task in tasks for other in rivals)

    def _rival(self, flag: str, asked: str) -> str:
        """Whom a name means, as a contender. Raises InputError for nobody."""
        if asked == "rag" and self.experiment.evaluation.passages is None:
            raise InputError(f"{flag} rag: the experiment of {self.run.path} has no evaluation.passages.")
        known = OF_CLASSIFIERS if self.classifies else PROMPTED
        if asked in known:
            self._check_asked(flag, asked)
            return asked
        name = asked.removeprefix(REGISTRY)
        names = registry.names()
        if name.partition("@")[0] not in names:
            near = nearest(name, (*known, *names))
            whose = " (a classifier's)" if self.classifies else ""
            raise InputError(
                f"{flag} {asked}: this is none of {', '.join(known)}{whose}, and no name in the registry.{near}"
            )
        return f"{REGISTRY}{registry.resolve(name).id}"

    def _check_asked(self, flag: str, asked: str) -> None:
        """Raises InputError for the base of a classifier that says no labels."""
        if self.classifies and asked == "base":
            from ftlib.driver.classifier import why_not_asked

            why = why_not_asked(self.experiment, self.run.resolved.get("data", {}).get("labels", ()))
            if why is not None:
                raise InputError(f"{flag} base: {why}. Say {flag} {MAJORITY}.")

    def _targets(self) -> list[str]:
        """The tasks on which the lead is asked for. Raises InputError where there is none."""
        if not self.classifies:
            return _targets(self.experiment.evaluation, self.conditions.task, self.run)
        if not self.experiment.data.held_out:
            raise InputError(f"the experiment of {self.run.path} holds no rows out (data.eval_split: 0).")
        if self.conditions.task not in (None, LABELS):
            raise InputError(f"--task {self.conditions.task}: a classifier's only task is called {LABELS}.")
        return [LABELS]

    def _do(self, staged: Version, demands: Sequence[Demand]) -> dict[str, Any]:
        """The tasks, done now."""
        if not self.conditions.trust:
            signature.check(self.run, "doing its tasks")
        names = {demand.task for demand in demands}
        what = f"trial {self.trial.id}"
        rivals = sorted({demand.rival for demand in demands}, key=lambda rival: (rival.startswith(REGISTRY), rival))
        self.say(
            f"{what} and {', '.join(name.removeprefix(REGISTRY) for name in rivals)} do {', '.join(sorted(names))}"
        )
        results, found = (self._labelled if self.classifies else self._answered)(staged, what, rivals, names)
        if results.failed:
            raise FtlibError(f"{what} was not promoted, since its tasks were not done: {results.failed[0]}")
        write_text(staged.path / ANSWERS, "".join(f"{line}\n" for line in results.lines()))  # kept with the version
        return {key: value for key, value in {**found, "verdict": verdict(found)}.items() if key in OF_TRIAL}

    def _answered(
        self, staged: Version, what: str, rivals: Sequence[str], names: Set[str]
    ) -> tuple[Results, dict[str, Any]]:
        from ftlib.driver.contenders import Contenders
        from ftlib.evaluation.results import do_tasks

        whole = self.experiment.evaluation
        section = whole.model_copy(update={"tasks": [task for task in whole.tasks if task.name in names]})
        made = Contenders(self.experiment.data, base_of(staged.manifest, what), staged.manifest.get("chat_template"))
        everybody = [partial(made.named, rival, section) for rival in rivals]
        everybody.insert(sum(rival in PROMPTED for rival in rivals), partial(made.of_copy, staged, what))
        results = do_tasks(section, self.experiment.data, everybody, self.run.judged_by)
        return results, results.to_dict(WINNER)

    def _labelled(
        self, staged: Version, what: str, rivals: Sequence[str], names: Set[str]
    ) -> tuple[Results, dict[str, Any]]:
        from ftlib.driver.classifier import compare_copy, numbers_of

        results = compare_copy(self.experiment, self.run, staged, what, rivals)
        return results, numbers_of(results, self.run)


def known_of(run: Run, trial: Trial) -> dict[str, Any] | None:
    """What evaluation.json says of a trial; None where its winner is another, or has learned on since.

    Raises FtlibError for a damaged file.
    """
    told = evaluation_of(run)
    if told is None or told.winner != trial.id or told.step not in (None, trial.manifest.get("step")):
        return None
    found = told.model_dump(include=set(OF_TRIAL))
    found["tasks"] = {name: task for name, task in found["tasks"].items() if _is_whole(task)}
    if found["seeds"] is None or found["seeds"]["trial"] != trial.id:
        found.pop("seeds")
    return {**found, "verdict": verdict(found)} if found["tasks"] else None


def _is_whole(task: Mapping[str, Any]) -> bool:
    """Whether the winner has done a task, and everybody who has done it has each number."""
    compared = {(one["theirs"], one["metric"]) for one in task["comparisons"] if one["ours"] == WINNER}
    others = [name for name in task["contenders"] if name != WINNER]
    return (
        WINNER in task["contenders"]
        and bool(task["metrics"])
        and all(set(task["metrics"]) <= set(one["numbers"]) for one in task["contenders"].values())
        and all((name, metric) in compared for name in others for metric in task["metrics"])
    )


def _targets(section: EvaluationSection, task: str | None, run: Run) -> list[str]:
    """The tasks on which the lead is asked for. Raises InputError where there is none."""
    if not section.tasks:
        raise InputError(
            f"the experiment of {run.path} has no tasks to compare on: write evaluation: {{tasks: [{{name: tickets, "
            "data: data/test.jsonl, metrics: [exact_match]}]}} into it, or compare the loss on a file with "
            "--unless-worse-than FILE."
        )
    names = [one.name for one in section.tasks]
    if task is not None and task not in names:
        raise InputError(f"--task {task}: the tasks of {run.path} are {', '.join(names)}.{nearest(task, names)}")
    found = [task] if task is not None else [one.name for one in section.tasks if one.role == "target"]
    if not found:
        raise InputError(f"all tasks of {run.path} have the role regression: name the one to lead on with --task.")
    return found


def _contender(evaluation: Mapping[str, Any], demand: Demand) -> str | None:
    """What the rival of a demand is called in an evaluation; None where it has not done the task.

    A version goes by what it was then: registry:NAME may have meant another.
    """
    there = evaluation["tasks"].get(demand.task, {}).get("contenders", {})
    if not demand.rival.startswith(REGISTRY):
        return demand.rival if demand.rival in there else None
    wanted = demand.rival.removeprefix(REGISTRY)
    named = (name for name, one in there.items() if name.startswith(REGISTRY) and one["what"] == wanted)
    return next(named, None)


def _look(evaluation: Mapping[str, Any], demand: Demand) -> tuple[bool, str]:
    return demand.look(evaluation["tasks"][demand.task], str(_contender(evaluation, demand)))
