"""What models are worth on tasks: the winner of a sweep beside the base, or any models on any file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import FtlibError, InputError

if TYPE_CHECKING:
    from ftlib.config import Experiment, TaskSection
    from ftlib.driver.listener import Listener
    from ftlib.evaluation.results import Contender, Results
    from ftlib.run.directory import Run, Trial

FAILED = "evaluation_failed"


def check_tasks(experiment: Experiment) -> None:
    """Reads the tasks, before anything is trained. Raises ConfigError, InputError or DataError for what cannot be
    done: a file, a metric, somebody in `evaluation.against`."""
    section = experiment.evaluation
    if not section.tasks:
        return
    from ftlib.driver.contenders import check_named
    from ftlib.evaluation import metrics
    from ftlib.evaluation.task import verdict_rows

    for task in section.tasks:
        verdict_rows(task, experiment.data, experiment.objective[0])
        for metric in task.metrics:
            metrics.check(metric)
    for name in section.against:
        check_named(name, experiment)


def is_due(experiment: Experiment, run: Run) -> bool:
    """Whether the winner of a run that has ended has still to do the tasks."""
    from ftlib.run.layout import EVALUATION

    tried = any(event["event"] == FAILED for event in run.events())
    return bool(experiment.evaluation.tasks) and not tried and not (run.path / EVALUATION).exists()


def evaluate_winner(experiment: Experiment, run: Run, listener: Listener, template: str | None) -> None:
    """Writes `evaluation.json`, and with tasks `answers.jsonl`. What cannot be done is a warning: the sweep has its
    trials."""
    from ftlib.driver.seeds import of_seeds
    from ftlib.evaluation.trial_ties import tied_trials
    from ftlib.files.atomic import write_json
    from ftlib.run.layout import EVALUATION
    from ftlib.run.leaderboard import leaderboard

    board = leaderboard(run)
    if board.best is None:
        return
    tied = tied_trials(run)
    if not experiment.evaluation.tasks:
        found = {"winner": board.best.trial, "ties": tied, "tasks": {}, "failed": []}
        write_json(run.path / EVALUATION, {**found, "seeds": of_seeds(run, board.best.trial, found)})
        return
    try:
        with listener.busy("the winner and the base do the tasks"):
            found = _of_winner(experiment, run, board.best.trial, template, tied)
    except (FtlibError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        run.log_event(FAILED, why=reason)
        listener.warn(f"the tasks were not done: {reason}")
        return
    for sentence in found["failed"]:
        listener.warn(sentence)


def _of_winner(experiment: Experiment, run: Run, trial: str, template: str | None, tied: list[str]) -> dict[str, Any]:
    from ftlib.driver.contenders import WINNER, Contenders
    from ftlib.driver.seeds import of_seeds, replicas_of, seed_name
    from ftlib.evaluation.results import do_tasks
    from ftlib.evaluation.verdict import verdict
    from ftlib.run.remote_run import bring_weights

    section, made = experiment.evaluation, Contenders(experiment.data, experiment.model, template)
    bring_weights(run, run.trial(trial))
    against = [_later(made.named, name, section) for name in section.against]
    replicas = replicas_of(run, trial)
    for replica in replicas.values():
        bring_weights(run, replica)
    again = [_later(made.of_trial, replica, seed_name(seed)) for seed, replica in replicas.items()]
    everybody = [*against, _later(made.of_trial, run.trial(trial)), *again]
    results = do_tasks(section, experiment.data, everybody, run.objective[0])
    step = run.trial(trial).manifest.get("step")
    found = {"winner": trial, "step": step, "ties": tied, **results.to_dict(WINNER)}
    found["seeds"] = of_seeds(run, trial, found)
    found["verdict"] = verdict(found)
    write(results, found, run.path)
    return found


def write(results: Results, found: dict[str, Any], folder: Path) -> None:
    """The numbers and the answers, as files of a folder."""
    from ftlib.files.atomic import write_json, write_text
    from ftlib.run.layout import ANSWERS, EVALUATION

    write_text(folder / ANSWERS, "".join(f"{line}\n" for line in results.lines()))
    write_json(folder / EVALUATION, found)


def evaluate(
    models: Sequence[str], task: TaskSection, shown: int = 0, examples: str | None = None, trust: bool = False
) -> tuple[Results, dict[str, Any]]:
    """Has models do a task; the first is compared with each of the others.

    A model is the name or folder of a base, registry:NAME[@N], a run (its best trial), RUN/trials/ID, or URL#MODEL.
    With `shown`, each model that is no URL is asked once more, shown so many rows of `examples`. Raises FtlibError
    for a model that cannot be had, and DataError for a file that cannot be read.
    """
    from ftlib.config import DataSection, EvaluationSection, ModelSection
    from ftlib.driver.contenders import Contenders, at_url, is_served
    from ftlib.evaluation import metrics
    from ftlib.evaluation.results import do_tasks

    if shown and examples is None:
        raise InputError("--few-shot shows rows of a file: name it with --examples FILE.")
    for metric in task.metrics:
        metrics.check(metric)
    data = DataSection(train=examples or task.data)
    section = EvaluationSection(tasks=[task], few_shot=shown or 1, against=[])
    made: list[Callable[[], Contender]] = []
    for name in dict.fromkeys(models):
        trial = _trial(name)
        one = Contenders(data, ModelSection(name_or_path=name, trust_remote_code=trust))
        if is_served(name):
            made.append(_later(at_url, name))
        elif trial is not None:
            made.append(_later(one.of_trial, trial, name))
        else:
            made.append(_later(one.version if name.startswith("registry:") else one.folder, name))
        if shown and trial is None and not is_served(name) and not name.startswith("registry:"):
            made.append(_later(_shown, one, name, section))
    results = do_tasks(section, data, made)
    return results, results.to_dict(models[0])


def _shown(made: Any, name: str, section: Any) -> Contender:
    from dataclasses import replace

    shown: Contender = made.named("few_shot", section)
    return replace(shown, name=f"{name} (few-shot)")


def _later(make: Callable[..., Contender], *given: Any) -> Callable[[], Contender]:
    return lambda: make(*given)


def _trial(name: str) -> Trial | None:
    """The trial that a path means: RUN/trials/ID, or the best of a run; None for what is no run."""
    from ftlib.run.directory import Run
    from ftlib.run.layout import RESOLVED, TRIALS
    from ftlib.run.leaderboard import leaderboard

    path = Path(name)
    if path.parent.name == TRIALS and (path.parents[1] / RESOLVED).is_file():
        return Run(path.parents[1]).trial(path.name)
    if not (path / RESOLVED).is_file():
        return None
    best = leaderboard(Run(path)).best
    if best is None:
        raise InputError(f"{path} has no trial with an evaluation yet.")
    return Run(path).trial(best.trial)
