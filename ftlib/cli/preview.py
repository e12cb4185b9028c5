"""What `ftlib check` says of an experiment: the data, the model, the cost, the sweep, and what is odd."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ftlib.config import Auto, Choice, Experiment, Merge, Range, Variants
from ftlib.config.objectives import constraints
from ftlib.config.packs import why_by_trainers

if TYPE_CHECKING:
    from ftlib.config import Dimension
    from ftlib.data import DataReport

ODD = 5  # findings that are printed; the rest are counted


def preview(experiment: Experiment, data: DataReport) -> Iterator[str]:
    """About ten lines, of which those on the data are its report's own."""
    from ftlib.driver.findings import findings
    from ftlib.driver.inspect_data import lines_of_check
    from ftlib.run.cost import expected
    from ftlib.training.estimate import estimate, seconds_of

    yield from (line for line in data.summary().splitlines() if not line.startswith("note: "))
    yield f"model:      {_model(experiment)}"
    found = estimate(experiment, data)
    yield from found.summary().splitlines()
    seconds = seconds_of(experiment, found)
    whole = None if seconds is None else _of_all(experiment, seconds)
    if experiment.method.trains:
        yield f"time:       {_times(experiment, seconds, whole)}"
    price = expected(experiment, found.tokens)
    if price is not None:
        yield f"cost:       {price}"
    yield from _sweep(experiment, data)
    yield from _tasks(experiment)
    yield from (f"rows:       {line}" for line in lines_of_check(experiment.data))
    odd = findings(experiment, data, found.steps, None if whole is None else whole / 3600)
    yield from (f"odd:        {sentence}" for sentence in odd[:ODD])
    if len(odd) > ODD:
        yield f"odd:        {len(odd) - ODD} more"


def _model(experiment: Experiment) -> str:
    model, adapter = experiment.model, experiment.adapter
    base = f"{model.name_or_path} ({model.quantization})" if model.quantization else model.name_or_path
    if isinstance(experiment.method, Merge):
        return f"{base}, merge of {', '.join(experiment.method.models)}"
    return f"{base}, {experiment.method.type}, {adapter.type if adapter else 'all weights'}"


def _of_all(experiment: Experiment, seconds: float) -> float:
    """Seconds that all trials take together, where none is stopped early."""
    return seconds * experiment.number_of_trials / _at_once(experiment) if experiment.sweep else seconds


def _times(experiment: Experiment, seconds: float | None, whole: float | None) -> str:
    if seconds is None or whole is None:
        return "not known here, where there is no GPU"
    told = f"about {_span(seconds)} a trial on this machine, by the speed of one matrix product"
    if experiment.sweep is None:
        return told
    return f"{told}; at most {_span(whole)} for all {experiment.sweep.number_of_trials}, {_at_once(experiment)} at once"


def _at_once(experiment: Experiment) -> int:
    """How many trials this machine's CPUs hold at once; one where trials take GPUs."""
    sweep, scale = experiment.sweep, experiment.scale
    assert sweep is not None
    if scale.use_gpu:
        return 1
    room = (os.cpu_count() or 1) // max(scale.resources_per_worker.get("CPU", 1.0) * scale.num_workers, 1)
    return max(1, int(min(room, sweep.number_of_trials, sweep.max_concurrent_trials or room)))


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _sweep(experiment: Experiment, data: DataReport) -> Iterator[str]:
    from ftlib.sweeps.rungs import why_never_stopped

    sweep = experiment.sweep
    if sweep is None:
        yield f"engine:     {_engine(experiment)}"
        return
    better = {"min": "lower", "max": "higher"}
    metrics = ", ".join(f"{metric} ({better[mode]} is better)" for metric, mode in experiment.objectives)
    yield f"a sweep:    {sweep.number_of_trials} trials, compared by {metrics}, {_packed(experiment)}"
    if sweep.constraints:
        yield f"bounds:     {', '.join(map(str, constraints(sweep.constraints)))}"
    dimensions = ", ".join(f"{path} {_dimension(dimension)}" for path, dimension in sweep.space.items())
    kind = sweep.scheduler.type
    never = why_never_stopped(experiment, data)
    stops = never or ("none is stopped" if kind == "none" else f"{kind} stops")
    yield f"space:      {dimensions}; {sweep.search.type} proposes, {stops}"
    if data.eval_rows:
        yield f"evaluated:  {_evaluated(experiment, data)}"


def _evaluated(experiment: Experiment, data: DataReport) -> str:
    """How often a trial is evaluated, on which rows, and what that costs."""
    from ftlib.sweeps.eval_part import Plan, trial_questions

    questions = len(trial_questions(experiment))
    plan = Plan(experiment, data, questions)
    told, times = f"about {plan.share:.0%} of the work of a trial", "once" if plan.times == 1 else f"{plan.times} times"
    if plan.whole:
        return f"{times} on all {data.eval_rows:,} rows, {told}"
    rows = f"{plan.rows or data.eval_rows:,} of {data.eval_rows:,} rows"
    asked = f" and {plan.asked or questions:,} of {questions:,} questions" if questions else ""
    return f"{times} on {rows}{asked}, then once on all, {told}"


def _tasks(experiment: Experiment) -> Iterator[str]:
    """How many answers are written: by each trial at each of its evaluations, and at the end."""
    from ftlib.evaluation.task import parted, read_questions

    section, metric, asked = experiment.evaluation, experiment.objective[0], 0
    for task in section.tasks:
        questions, told = read_questions(task, experiment.data), ""
        if metric.startswith(f"{task.name}/"):
            some, questions = parted(questions, task)
            told = f"{len(some):,} answers of each trial at each evaluation, "
        models = len(section.against) + section.seeds
        yield (
            f"a task:     {task.name}, {', '.join(one.name for one in task.metrics)}: {told}{len(questions):,} of each "
            f"of {models} models at the end, up to {task.max_new_tokens} tokens each"
        )
        asked += len(questions)
    for name in section.served if section.tasks else ():
        yield f"a URL:      {_at_url(name, section.key_env)}: {asked:,} requests at the end"


def _at_url(name: str, key_env: Mapping[str, str]) -> str:
    """Who is asked where, and which key goes there."""
    from ftlib.files.url_keys import host_of, variable_for

    url, _, model = name.partition("#")
    variable = variable_for(url, key_env.get(host_of(url)))
    return f"{model} at {url}, {'without a key' if variable is None else f'with the key in {variable}'}"


def _dimension(dimension: Dimension) -> str:
    if isinstance(dimension, Range):
        return f"{dimension.min:g} to {dimension.max:g}"
    if isinstance(dimension, Auto):
        return "auto"
    if isinstance(dimension, Variants):
        return "|".join(dimension.labels)
    listed = "|".join(str(value) for value in dimension.choices)
    return listed if isinstance(dimension, Choice) else f"{listed} x {dimension.ratio_of}"


def _packed(experiment: Experiment) -> str:
    if experiment.pack == "off":
        return "one by one (sweep.pack: off)"
    reason = why_by_trainers(experiment)
    return f"one by one: {reason}" if reason else "in packs on one shared base"


def _engine(experiment: Experiment) -> str:
    """What trains one trial."""
    reason = why_by_trainers(experiment)
    return f"the method's trainer: {reason}" if reason else "a pack of one"
