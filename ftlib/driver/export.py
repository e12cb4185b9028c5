"""`ftlib export`: which winner a name means, and whether the exported artifact still does its tasks."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.driver.contenders import trial_of
from ftlib.errors import DataError, FtlibError
from ftlib.evaluation.loaded import Loaded
from ftlib.evaluation.results import TaskResult
from ftlib.evaluation.statistics import compare
from ftlib.evaluation.task import verdict_rows
from ftlib.export import hub
from ftlib.export.export import FIGURES, Exported, Say, Tasks, export
from ftlib.export.formats import ADAPTERS
from ftlib.export.program import Program
from ftlib.export.source import Source
from ftlib.files.home import home
from ftlib.files.json_files import read_json
from ftlib.models import adapter_files
from ftlib.registry import registry
from ftlib.registry.bases import REGISTRY
from ftlib.registry.gate import Candidate
from ftlib.registry.promotable import copy_weights, promotable
from ftlib.registry.staging import staging_in
from ftlib.registry.version import Version
from ftlib.run import signature
from ftlib.run.directory import Run, Trial
from ftlib.run.remote_run import bring_weights

ROWS = 50  # of each task that the artifact does
CHANCE = 0.05
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def export_winner(
    name: str, to: str, out: Path | None, say: Say, dtype: str | None = None, rows: int = ROWS, trust: bool = False
) -> Exported:
    """Exports NAME, a name of the registry (NAME[@N]) or a run (its best trial, or RUN/trials/ID), into a folder.

    `out` None is NAME-FORMAT here. `rows` of each task are done by the artifact, 0 for none. Raises InputError for a
    name that means nothing and for what a format cannot hold, and FtlibError for an artifact that lost the tune.
    """
    with opened(name, say, trust) as source:
        folder = out or Path(f"{source.name}-{to}")
        return export(source, to, folder, dtype, say, TasksAgain(source, rows))


def push_winner(
    what: str,
    repo: str,
    to: str,
    say: Say,
    dtype: str | None = None,
    licence: str | None = None,
    public: bool = False,
    trust: bool = False,
) -> str:
    """Brings a folder that `ftlib export` has made, or a winner that is exported for it, to the Hub as OWNER/NAME, and
    returns its URL. Raises as `export_winner` and `hub.push`."""
    folder = Path(what)
    if (folder / FIGURES).is_file():
        figures = read_json(folder / FIGURES, dict) or {}
        base = figures.get("base")
        _warn_of_base(str(figures.get("to")), base, say)
        return hub.push(folder, repo, _licence(base, None, licence, say), public)
    with opened(what, say, trust) as source, staging_in(home() / "cache" / "exports") as staged:
        done = export(source, to, staged / source.name, dtype, say, TasksAgain(source, ROWS))
        _warn_of_base(to, source.hub_name, say)
        named = _licence(source.hub_name or source.base_name, source.base.revision, licence, say)
        return hub.push(done.folder, repo, named, public)


def _warn_of_base(to: str, base: str | None, say: Say) -> None:
    if to in ADAPTERS and base is None:
        say("warning: its base is a folder of this machine, so nobody else can load the adapter: push it --to merged")


def _licence(base: str | None, revision: str | None, given: str | None, say: Say) -> hub.Licence | None:
    found = hub.licence_of(base or "", revision, given) if base or given else None
    if found is None:
        say("warning: nobody says the licence of its base, so the card says 'unknown' (--license NAME)")
    return found


@contextlib.contextmanager
def opened(name: str, say: Say, trust: bool = False) -> Iterator[Source]:
    """What a name means, checked as for a promotion. A trial is copied first: one that trains on would change."""
    with registry.trusting(trust):
        trial = None if name.startswith(REGISTRY) else trial_of(Path(name))
        if trial is None:
            version = registry.resolve(name.removeprefix(REGISTRY))
            registry.check_manifest(version)
            registry.check_loadable(version)
            yield Source(Candidate(version, version.id), version.id.replace("@", "-"))
            return
        with _copied(trial, say, trust) as source:
            yield source


@contextlib.contextmanager
def _copied(trial: Trial, say: Say, trust: bool) -> Iterator[Source]:
    run = Run(trial.path.parents[1])
    why = signature.why_foreign(run)
    if why is not None and not trust:
        say(f"warning: {why}: nothing that it brings runs as code (--trust lets it)")
    bring_weights(run, trial)
    origin, trusted = promotable(trial), trust or why is None
    name = UNSAFE.sub("-", f"{run.name}-{trial.id}")
    with staging_in(home() / "cache" / "exports") as staged:
        copy_weights(trial, origin, staged / origin.name.removeprefix(".").removesuffix(".old"), trusted)
        version = Version(name, 0, staged, trusted)
        adapter_files.check_code(f"trial {trial.id} of {run.name}", version.weights, trusted)
        registry.check_loadable(version)
        yield Source(Candidate(version, f"trial {trial.id} of {run.name}"), name)


class TasksAgain(Tasks):
    """The tasks of the experiment, done by the base, by the tuned model, and by the artifact, on the same rows."""

    def __init__(self, source: Source, rows: int) -> None:
        self.failed: dict[str, str] = {}
        self.tasks: list[TaskResult] = []
        experiment = source.candidate.experiment
        metric = experiment.objective[0]
        for task in experiment.evaluation.tasks if rows else ():
            try:
                questions = verdict_rows(task, experiment.data, metric)[:rows]
                self.tasks.append(TaskResult(task, questions, experiment.evaluation.seed))
            except DataError as error:
                self.failed[task.name] = f"not done: {error}"

    def loaded(self, who: str, model: Any, source: Source) -> None:
        named = Loaded(model, source.candidate.tokenizer, source.template).contender(who, source.owner)
        for task in self.tasks:
            task.add(named)

    def check(self, program: Program, owner: str) -> dict[str, Any]:
        contender = program.contender("exported")
        if contender is None:
            return {task.task.name: f"not done: {program.name} does none" for task in self.tasks}
        for task in self.tasks:
            task.add(contender)
        return {**self.failed, **{task.task.name: _verdict(task, owner) for task in self.tasks}}


def _verdict(task: TaskResult, owner: str) -> dict[str, Any]:
    """The numbers of a task, and how many answers are the tuned model's. Raises as `_check_gain`."""
    _check_gain(task, owner)
    pairs = zip(task.answers["exported"], task.answers["trained"], strict=True)
    same = sum(ours.text == theirs.text for ours, theirs in pairs)
    numbers = {who: {name: one.number() for name, one in scores.items()} for who, scores in task.scores.items()}
    parts = [
        f"{name} {value:.3g}, trained {numbers['trained'][name]:.3g}" for name, value in numbers["exported"].items()
    ]
    return {
        "rows": len(task.questions),
        "numbers": numbers,
        "same_answers": same,
        "tokens_per_second": task.to_dict(None)["contenders"]["exported"]["tokens_per_second"],
        "sentence": f"{'; '.join(parts)}; {same} of {len(task.questions)} answers are the tuned model's, word for word",
    }


def _check_gain(task: TaskResult, owner: str) -> None:
    """Raises FtlibError where more than half of what the tune gained is lost, by more than chance. Without a base,
    nothing says what it gained."""
    for name, before in task.scores.get("base", {}).items():
        tuned, ours = task.scores["trained"][name], task.scores["exported"][name]
        gained = tuned.sign * (tuned.number() - before.number())
        lost = tuned.sign * (tuned.number() - ours.number())
        if gained > 0 and lost > gained / 2 and (compare(tuned, ours, task.groups, seed=task.seed).p or 0) < CHANCE:
            raise FtlibError(
                f"{owner} has lost the tune: on {task.task.name} its {name} is {ours.number():.3g}, where the tuned "
                f"model has {tuned.number():.3g} and the base {before.number():.3g}."
            )
