"""What models are worth on tasks: the winner of a sweep beside the base, or any models on any file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.errors import FtlibError, InputError, nearest

if TYPE_CHECKING:
    from ftlib.config import DataSection, Experiment, TaskSection
    from ftlib.driver.contenders import Contenders
    from ftlib.driver.listener import Listener
    from ftlib.evaluation.results import Contender, Results
    from ftlib.run.directory import Run

FAILED = "evaluation_failed"


def check_tasks(experiment: Experiment) -> None:
    """Reads the tasks, before anything is trained. Raises ConfigError, InputError or DataError for what cannot be
    done: a file, a metric, somebody in `evaluation.against`."""
    section = experiment.evaluation
    if not section.tasks:
        return
    from ftlib.config.objectives import judged_by
    from ftlib.driver.contenders import check_named
    from ftlib.evaluation import metrics
    from ftlib.evaluation.task import of_verdict, read_questions

    judged = (experiment.objective[0], *judged_by(experiment))
    for task in section.tasks:
        questions = read_questions(task, experiment.data)
        of_verdict(questions, task, judged)
        for metric in task.metrics:
            metrics.check(metric, questions)
    for name in section.against:
        check_named(name, experiment)


def is_due(experiment: Experiment, run: Run) -> bool:
    """Whether the winner of a run that has ended has still to do the tasks."""
    from ftlib.run.layout import EVALUATION

    tried = any(event["event"] == FAILED for event in run.events())
    return _is_compared(experiment) and not tried and not (run.path / EVALUATION).exists()


def _is_compared(experiment: Experiment) -> bool:
    """Whether the winner is compared with others: on tasks, or as a classifier on the rows that are held out."""
    return bool(experiment.evaluation.tasks) or _is_classifier(experiment)


def _is_classifier(experiment: Experiment) -> bool:
    return experiment.method.head == "sequence_classification" and experiment.data.held_out


def evaluate_winner(experiment: Experiment, run: Run, listener: Listener, template: str | None) -> None:
    """Writes `evaluation.json`, and with tasks `answers.jsonl`.

    What cannot be done ends no sweep, whatever the reason: its trials are there. `not_done` says it to whoever asks.
    """
    from ftlib.run.leaderboard import leaderboard

    best = leaderboard(run).best
    if best is None:
        return
    try:
        _evaluate_winner(experiment, run, listener, best.trial, template)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        run.log_event(FAILED, why=reason if isinstance(error, FtlibError) else f"{type(error).__name__}: {reason}")


def not_done(run: Run) -> list[str]:
    """What was asked of the winner's evaluation and was not done, a sentence each."""
    from ftlib.files.json_files import read_json
    from ftlib.run.layout import EVALUATION

    told = read_json(run.path / EVALUATION, dict)
    if told is not None:
        return [str(sentence) for sentence in told.get("failed", ())]
    return [f"the winner was not evaluated: {event['why']}" for event in run.events() if event["event"] == FAILED][-1:]


def _evaluate_winner(experiment: Experiment, run: Run, listener: Listener, trial: str, template: str | None) -> None:
    from ftlib.driver.seeds import of_seeds, why_fewer
    from ftlib.evaluation.trial_ties import tied_trials
    from ftlib.files.atomic import write_json
    from ftlib.run.layout import EVALUATION

    section, tied, fewer = experiment.evaluation, tied_trials(run), why_fewer(experiment, run, trial)
    if not _is_compared(experiment):
        found: dict[str, Any] = {"winner": trial, "ties": tied, "tasks": {}, "failed": fewer}
        write_json(run.path / EVALUATION, {**found, "seeds": of_seeds(run, trial, found)})
        return
    names = ", ".join(task.name for task in section.tasks)
    others = ", ".join(section.against) or "nobody else"
    listener.say(
        "the winner and its baselines label the held-out rows"
        if _is_classifier(experiment)
        else f"the winner and {others} do the tasks: {names}"
    )
    _of_winner(experiment, run, trial, template, tied, fewer)


def _of_winner(
    experiment: Experiment, run: Run, trial: str, template: str | None, tied: list[str], fewer: list[str]
) -> None:
    from ftlib.driver.seeds import of_seeds
    from ftlib.driver.task_worker import on_a_worker
    from ftlib.evaluation.verdict import verdict

    work = on_a_worker if experiment.scale.use_gpu else compare_winner
    told, lines = work(experiment, run, trial, template)
    found = {"winner": trial, "step": run.trial(trial).manifest.get("step"), "ties": tied, **told}
    found["compared_on"] = _compared_on(experiment, run)
    found["seeds"] = of_seeds(run, trial, found)
    found["verdict"] = verdict(found)
    found["failed"] = [*found["failed"], *_warnings(found), *fewer]
    write(lines, found, run.path)


def _warnings(found: dict[str, Any]) -> list[str]:
    """What could not be scored (a judge that is away), with the task and who has answered."""
    return [
        f"{task}, {contender}: {warning}"
        for task, told in found["tasks"].items()
        for contender, one in told["contenders"].items()
        for warning in one["warnings"]
    ]


def compare_winner(
    experiment: Experiment, run: Run, trial: str, template: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Has the winner, its replicas and those that it is compared with do the tasks, in this process.

    Returns the part of evaluation.json that is about tasks, and the lines of answers.jsonl. Raises FtlibError for
    weights that cannot be had.
    """
    from ftlib.driver.contenders import WINNER, Contenders
    from ftlib.driver.seeds import replicas_of, seed_name
    from ftlib.evaluation.results import do_tasks
    from ftlib.run.remote_run import bring_weights

    if _is_classifier(experiment):
        from ftlib.driver.classifier import compare_classifier

        return compare_classifier(experiment, run, trial)
    section, made = experiment.evaluation, Contenders(experiment.data, experiment.model, template)
    bring_weights(run, run.trial(trial))
    against = [_later(made.named, name, section) for name in section.against]
    replicas = replicas_of(run, trial)
    for replica in replicas.values():
        bring_weights(run, replica)
    again = [_later(made.of_trial, replica, seed_name(seed)) for seed, replica in replicas.items()]
    everybody = [*against, _later(made.of_trial, run.trial(trial)), *again]
    results = do_tasks(section, experiment.data, everybody, run.judged_by)
    return results.to_dict(WINNER), list(results.lines())


def _compared_on(experiment: Experiment, run: Run) -> int | None:
    """The rows that trials were compared on."""
    from ftlib.evaluation.task import parted, read_questions

    task = experiment.evaluation.task(run.objective[0].rpartition("/")[0])
    if task is None:
        count: int | None = run.resolved.get("data", {}).get("eval_rows")
        return count
    return len(parted(read_questions(task, experiment.data), task)[0])


def write(lines: Iterable[str], found: dict[str, Any], folder: Path) -> None:
    """The numbers and the answers, as files of a folder."""
    from ftlib.files.atomic import write_json, write_text
    from ftlib.run.layout import ANSWERS, EVALUATION

    write_text(folder / ANSWERS, "".join(f"{line}\n" for line in lines))
    write_json(folder / EVALUATION, found)


def evaluate(
    models: Sequence[str],
    task: TaskSection,
    shown: int = 0,
    examples: str | None = None,
    trust: bool = False,
    keys: Mapping[str, str] | None = None,
) -> tuple[Results, dict[str, Any]]:
    """Has models do a task; the first is compared with each of the others.

    A model is the name or folder of a base, registry:NAME[@N], a run (its best trial), RUN/trials/ID, or URL#MODEL.
    With `shown`, each base is asked once more, shown so many rows of `examples`. `keys` are hosts of URLs, and the
    environment variable with the key of each. Raises InputError for a model that is not there, and DataError for a file
    that cannot be read, before anybody is asked.
    """
    from ftlib.config import DataSection, EvaluationSection
    from ftlib.driver.contenders import is_base, maker
    from ftlib.evaluation.results import do_tasks

    data = DataSection(train=examples or task.data)
    section = EvaluationSection(tasks=[task], few_shot=shown or 1, against=[])
    made: list[Callable[[], Contender]] = []
    _check_hosts(models, keys or {})
    for name in dict.fromkeys(models):
        one = _contenders(name, data, trust)
        made.append(maker(name, one, keys or {}))
        if shown and is_base(name):
            made.append(_later(_shown, one, name, section))
    _check(task, data, shown, examples, _served(models))
    results = do_tasks(section, data, made)
    return results, results.to_dict(models[0])


def ask(
    models: Sequence[str], task: TaskSection, trust: bool = False, keys: Mapping[str, str] | None = None
) -> Results:
    """Has models, named as for `evaluate`, answer the questions of a task whose rows need no right answers: nothing is
    scored. Raises as `evaluate`."""
    from ftlib.config import DataSection
    from ftlib.driver.contenders import maker
    from ftlib.evaluation.results import TaskResult, done
    from ftlib.evaluation.task import read_questions

    data = DataSection(train=task.data)
    _check_hosts(models, keys or {})
    made = [maker(name, _contenders(name, data, trust), keys or {}) for name in models]
    _check_is_no_model(task)
    return done([TaskResult(task, read_questions(task, data, "FILE", scored=False), 0)], made, TaskResult.ask)


def do_benchmarks(
    models: Sequence[str], names: Sequence[str], limit: int | None = None, trust: bool = False
) -> tuple[Results, dict[str, Any]]:
    """Has models do benchmarks of lm-eval's, as `evaluate` has them do a file.

    A name is lm-eval's, or the path of a task's YAML file. Raises InputError for what is not there, before anybody is
    asked.
    """
    from ftlib.config import DataSection
    from ftlib.driver.contenders import maker
    from ftlib.evaluation.benchmarks import benchmarks
    from ftlib.evaluation.results import done

    served = _served(models)
    if served is not None:
        raise InputError(f"--benchmark needs the model itself, and {served} is a URL.")
    data = DataSection(train=names[0])
    made = [maker(name, _contenders(name, data, trust), {}) for name in dict.fromkeys(models)]
    results = done(benchmarks(names, limit), made)
    return results, results.to_dict(models[0])


def _contenders(name: str, data: DataSection, trust: bool) -> Contenders:
    from ftlib.config import ModelSection
    from ftlib.driver.contenders import Contenders

    return Contenders(data, ModelSection(name_or_path=name, trust_remote_code=trust))


def _served(models: Sequence[str]) -> str | None:
    from ftlib.config.evaluation import is_served

    return next(filter(is_served, models), None)


def _check_hosts(models: Sequence[str], keys: Mapping[str, str]) -> None:
    """Raises InputError for the key of a host that nobody asks."""
    from ftlib.config.evaluation import is_served
    from ftlib.files.url_keys import host_of

    hosts = [host_of(name) for name in models if is_served(name)]
    for host in keys:
        if host not in hosts:
            there = f"The MODELs are at {', '.join(hosts)}." if hosts else "No MODEL is a URL."
            raise InputError(f"--key-env: no MODEL is at '{host}'.{nearest(host, hosts)} {there}")


def _check(task: TaskSection, data: DataSection, shown: int, examples: str | None, served: str | None) -> None:
    """Raises InputError for a file, a metric or examples that cannot be used, in the words of the command line.
    `served` is a model behind a URL, if there is one."""
    from ftlib.evaluation import metrics
    from ftlib.evaluation.prompting import few_shot
    from ftlib.evaluation.task import read_questions

    if shown and examples is None:
        raise InputError("--few-shot shows rows of a file: name it with --examples FILE.")
    if examples is not None and not shown:
        raise InputError("--examples has the rows that --few-shot N shows: say how many.")
    _check_is_no_model(task)
    questions = read_questions(task, data, "FILE")
    for metric in task.metrics:
        metrics.check(metric, questions)
        if metric.type == "perplexity" and served is not None:
            raise InputError(f"metric perplexity needs the model itself, and {served} is a URL.")
    if shown:
        try:
            few_shot(task, data, shown, 0)
        except InputError as error:
            raise InputError(str(error).replace("data.train", "--examples")) from None


def _check_is_no_model(task: TaskSection) -> None:
    if (Path(task.data) / "config.json").is_file():
        raise InputError(f"FILE '{task.data}' is the folder of a model. The file of questions comes last.")


def _shown(made: Any, name: str, section: Any) -> Contender:
    from dataclasses import replace

    shown: Contender = made.named("few_shot", section)
    return replace(shown, name=f"{name} (few-shot)")


def _later(make: Callable[..., Contender], *given: Any) -> Callable[[], Contender]:
    return lambda: make(*given)
