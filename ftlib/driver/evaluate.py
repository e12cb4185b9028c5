"""What a sweep was worth: its winner and those it is compared with do the experiment's tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.driver.listener import Listener
    from ftlib.run.directory import Run


def check_tasks(experiment: Experiment) -> None:
    """Reads the tasks, before anything is trained. Raises ConfigError, InputError or DataError for what cannot be
    done: a file, a metric, somebody in `evaluation.against`."""
    section = experiment.evaluation
    if not section.tasks:
        return
    from ftlib.driver.contenders import check_named
    from ftlib.evaluation import metrics
    from ftlib.evaluation.task import read_questions

    for task in section.tasks:
        read_questions(task, experiment.data)
        for metric in task.metrics:
            metrics.check(metric)
    for name in section.against:
        check_named(name, experiment)


def evaluate_winner(experiment: Experiment, run: Run, listener: Listener, template: str | None) -> None:
    """Writes `evaluation.json` and `answers.jsonl`. What cannot be done is a warning: the sweep has its trials."""
    from ftlib.errors import FtlibError
    from ftlib.run.leaderboard import leaderboard

    best = leaderboard(run).best
    if best is None or not experiment.evaluation.tasks:
        return
    try:
        with listener.busy("the winner and the base do the tasks"):
            found = _evaluated(experiment, run, best.trial, template)
    except (FtlibError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        run.log_event("evaluation_failed", why=reason)
        listener.warn(f"the tasks were not done: {reason}")
        return
    for sentence in found["failed"]:
        listener.warn(sentence)


def _evaluated(experiment: Experiment, run: Run, trial: str, template: str | None) -> dict[str, Any]:
    from ftlib.driver.contenders import WINNER, Contenders
    from ftlib.evaluation.results import do_tasks
    from ftlib.evaluation.verdict import verdict
    from ftlib.files.atomic import write_json, write_text
    from ftlib.run.layout import ANSWERS, EVALUATION
    from ftlib.run.remote_run import bring_weights

    section, contenders = experiment.evaluation, Contenders(experiment, template)
    bring_weights(run, run.trial(trial))
    results = do_tasks(section, experiment.data, [*contenders.against(section), lambda: contenders.winner(run, trial)])
    found = {"winner": trial, **results.to_dict(WINNER)}
    found["verdict"] = verdict(found)
    write_text(run.path / ANSWERS, "".join(f"{line}\n" for line in results.lines()))
    write_json(run.path / EVALUATION, found)
    return found
