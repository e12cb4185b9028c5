"""One leaderboard, one evaluation: what the trials of a sweep may not differ in, and what they can be compared by.

A key changes what is evaluated (`CHANGES`), or it changes what some of a method's metrics mean (`moves` of the method,
`methods/`), or it does neither; tests/config/test_comparable.py classes every key of the schema. A clone by hand is
held to the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ftlib.config.methods.base import BITS
from ftlib.config.objectives import MEASURES
from ftlib.errors import nearest

if TYPE_CHECKING:
    from ftlib.config.experiment import Experiment

ROWS = "it decides which rows are held out, so trials would be evaluated on different rows"
TOKENS = (
    "it decides which tokens of a held-out row are read and counted, so trials would be evaluated on different tokens"
)
BASE = "another base has its own tokens, so its loss on a token is another number"
CHANGES: dict[str, str] = {
    "model.name_or_path": BASE,
    "model.revision": BASE,
    "model.gguf_file": BASE,
    "model.tokenizer": TOKENS,
    "model.special_tokens": TOKENS,  # and each of its keys
    "data.train": ROWS,  # unless data.eval names rows of its own
    "data.eval": ROWS,
    "data.eval_split": ROWS,
    "data.split_seed": ROWS,
    "data.group": ROWS,
    "data.long_rows": ROWS,
    "data.hub_config": ROWS,
    "data.hub_split": ROWS,
    "data.format": ROWS,
    "data.columns": ROWS,
    "data.ignore_columns": ROWS,
    "data.deduplicate": ROWS,
    "data.max_rows": ROWS,
    "data.on_bad_row": ROWS,
    "data.template": TOKENS,
    "data.drop_system_message": TOKENS,
    "data.train_on_prompt": TOKENS,
    "data.max_length": TOKENS,
    "data.labels": "it decides which answer to a held-out row is right, so trials would be held to different answers",
    "method.models": "the models are looked up once for all trials, and a weight of 0 leaves one out",
    "method.type": "each method evaluates rows and numbers of its own",
    "method.task": "each task evaluates rows and numbers of its own",
}


def why_not_compared(experiment: Experiment, path: str) -> str | None:
    """Why trials that differ in the key at `path` cannot stand on one leaderboard, and what to do. None where they
    can."""
    a_run_each = f"make a run for each value ({path}=... on the command line)"
    reason = CHANGES.get(path) or CHANGES.get(path.rpartition(".")[0])
    if reason is not None:
        if reason == BASE and all(map(partial(_is_of_text, experiment), experiment.objectives)):
            return None
        if reason == BASE:
            a_run_each = f"use a metric of texts ({BITS}, or one of a task), or {a_run_each}"
        if path == "data.train":
            return None if experiment.data.eval else f"{reason}: name fixed rows in data.eval, or {a_run_each}"
        return f"{reason}: {a_run_each}"
    method = experiment.method
    moved = method.moves.get(path.removeprefix("method."), ()) if path.startswith("method.") else ()
    metric = next((name for name, _ in experiment.objectives if name in moved), None)
    if metric is None:
        return None
    others = [name for name in method.metrics if name not in moved]
    instead = f"use sweep.metric: {others[0]}, or {a_run_each}" if others else a_run_each
    return f"it changes what {metric} means, by which trials are compared: {instead}"


def _is_of_text(experiment: Experiment, objective: tuple[str, str]) -> bool:
    """Whether a metric is the same number for any tokenizer: of texts, and of what is no evaluation's at all."""
    name = objective[0]
    kinds = {f"{task.name}/{one.name}": one.type for task in experiment.evaluation.tasks for one in task.metrics}
    return name == BITS or name in MEASURES or kinds.get(name, "perplexity") != "perplexity"


def why_no_metric(experiment: Experiment) -> str | None:
    """Why the sweep's metric and mode cannot decide between its trials, as a sentence. None where they can."""
    sweep, tasks = experiment.sweep, experiment.evaluation.metrics
    if sweep is None:
        return None
    named = sweep.metrics or [experiment.method.metric[0]]
    asked = [name for name in (*named, *sweep.constraints) if name in tasks]
    if asked and (why := _why_not_answered(experiment, asked[0])) is not None:
        return why
    if not experiment.data.held_out:
        return None
    known = {**experiment.method.metrics, **tasks}
    metric = named[0]
    if metric not in known:
        prefixed = [name for name in known if name in (f"eval_{metric}", f"eval_rewards/{metric}")]
        near = f" Did you mean '{prefixed[0]}'?" if prefixed else nearest(metric, known)
        return (
            f"sweep.metric is '{metric}', but an evaluation of method.type '{experiment.method.type}' gives: "
            f"{', '.join(known)}.{near}"
        )
    modes = sweep.mode if isinstance(sweep.mode, list) else [sweep.mode] * bool(sweep.mode)
    for mode, (name, right) in zip(modes, experiment.objectives, strict=False):
        if mode != right:
            better = "lower" if right == "min" else "higher"
            wrong = f"sweep.mode is '{mode}', but {name} is better the {better} it is"
            return f"{wrong}: use {right}, or drop mode"
    return None


def why_no_tasks(experiment: Experiment) -> str | None:
    """Why the models of an experiment cannot do its tasks, as a sentence; None where they can."""
    if experiment.evaluation.tasks and experiment.method.head != "causal_lm":
        return (
            f"evaluation.tasks asks for answers, and a model of method.type '{experiment.method.type}' writes none: "
            "leave the tasks out"
        )
    others = [name for name in experiment.evaluation.against if name not in ("base", "few_shot")]
    if others and experiment.method.head == "sequence_classification":
        return (
            f"evaluation.against names {others[0]}: a classifier is compared with the most frequent label, and with "
            "the base where it writes. Leave it out"
        )
    return None


def _why_not_answered(experiment: Experiment, metric: str) -> str | None:
    """Why trials cannot do a task at their evaluations."""
    if not experiment.data.held_out:
        return (
            f"sweep.metric is '{metric}', which trials have at their evaluations, and there are no rows to evaluate "
            "on: set data.eval or data.eval_split"
        )
    if experiment.scale.strategy in ("fsdp", "deepspeed"):
        return (
            f"sweep.metric is '{metric}', for which a trial writes answers, and a model that is spread over workers "
            "(scale.strategy "
            f"'{experiment.scale.strategy}') writes none while it trains: use {experiment.method.metric[0]}; the tasks "
            "are done at the end of the sweep"
        )
    return None


__all__ = ["CHANGES", "why_no_metric", "why_no_tasks", "why_not_compared"]
