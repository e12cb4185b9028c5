"""Benchmarks of EleutherAI's harness (Gao et al. 2024, lm-eval): it asks, and our statistics compare the models.

A benchmark is a name of lm-eval's or the path of a task's YAML file. Of a group (`mmlu`), the rows of all its tasks are
one benchmark. Prompts have no chat template, as in lm-eval's own defaults: so numbers are those that others publish.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from ftlib.config import TaskSection
from ftlib.config.evaluation import Better
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.evaluation.results import Contender, TaskResult
from ftlib.evaluation.score import Score, mean_of
from ftlib.evaluation.task import Answer, Question

AT_ONCE = 8  # rows in a batch
SEED = 1234  # lm-eval's own, of the examples that its prompts show
YAMLS = (".yaml", ".yml")

Sample = Mapping[str, Any]  # lm-eval's record of a row: `arguments`, `resps`, `target`, `filter`, a key for each metric


@dataclass(frozen=True)
class _Metric:
    name: str
    better: Better


@dataclass
class Benchmark(TaskResult):
    """What each contender made of a benchmark: of `loaded`, lm-eval's tasks and groups."""

    loaded: Any = None
    limit: int | None = None  # rows of each of its tasks
    means: dict[str, Better] = field(default_factory=dict)  # metrics that are a mean of their rows

    @property
    def metrics(self) -> dict[str, Better]:
        """Each metric's name, and which way is better."""
        return {name: one.better for name, one in next(iter(self.scores.values()), {}).items()}

    def add(self, contender: Contender) -> None:
        """Has a contender do it. Raises FtlibError where lm-eval cannot."""
        started = time.perf_counter()
        rows = _by_filter(self._samples(contender))
        first = next(iter(rows.values()))
        seconds = (time.perf_counter() - started) / len(first)
        self.questions = [_question(sample) for sample in first]
        self.scores[contender.name] = dict(self._scores(rows))
        self.answers[contender.name] = [Answer(_said(sample), seconds=seconds) for sample in first]
        self.what[contender.name] = contender.what

    def _samples(self, contender: Contender) -> list[Sample]:
        """lm-eval's records of all rows of all its tasks. (Its `simple_evaluate` would load these again for each model,
        and look at the machine and at git.)"""
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        for task in self.loaded["tasks"].values():
            task.set_fewshot_seed(SEED)
        try:
            with redirect_stderr(StringIO()):  # its progress bars
                asked = HFLM(pretrained=contender.model, tokenizer=contender.tokenizer, batch_size=AT_ONCE)
                found = evaluate(asked, self.loaded, limit=self.limit, bootstrap_iters=0)
        except Exception as error:  # of a data set, of a function of the task
            raise FtlibError(f"lm-eval fails: {type(error).__name__}: {error}") from error
        return [sample for name in sorted(found["samples"]) for sample in found["samples"][name]]

    def _scores(self, rows: Mapping[str, Sequence[Sample]]) -> list[tuple[str, Score]]:
        found = []
        for kind, samples in rows.items():
            for metric in (name for name in self.means if name in samples[0]):
                name = metric if len(rows) == 1 else f"{metric} ({kind})"
                values = [float(sample[metric]) for sample in samples]
                is_share = set(values) <= {0.0, 1.0}
                found.append((name, mean_of(_Metric(name, self.means[metric]), values, is_share=is_share)))
        return found


def benchmarks(names: Sequence[str], limit: int | None = None) -> list[Benchmark]:
    """Benchmarks that contenders can do; their data is read. Of each task `limit` rows, None takes all.

    Raises InputError where lm-eval is not installed, and for what it cannot load.
    """
    if find_spec("lm_eval") is None:
        raise InputError("--benchmark needs the package lm-eval: pip install 'ftlib[benchmarks]'.")
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=not all(name.endswith(YAMLS) for name in names))
    return [_benchmark(name, manager, limit) for name in dict.fromkeys(names)]


def _benchmark(name: str, manager: Any, limit: int | None) -> Benchmark:
    is_file = name.endswith(YAMLS)
    if is_file and not Path(name).is_file():
        raise InputError(f"--benchmark: there is no file {name}.")
    if not is_file and name not in manager.all_tasks:
        raise InputError(f"--benchmark: lm-eval has no '{name}'.{nearest(name, manager.all_tasks)}")
    try:
        loaded = manager.load([name])
    except Exception as error:  # of YAML, of a data set, of a module that a task imports
        raise InputError(f"--benchmark: lm-eval cannot load '{name}': {type(error).__name__}: {error}") from error
    means = {metric: better for task in loaded["tasks"].values() for metric, better in _means(task).items()}
    if not means:
        raise InputError(f"--benchmark: no metric of '{name}' is a mean over rows, which ftlib could compare.")
    task = TaskSection.model_construct(name=Path(name).stem if is_file else name, data=name, metrics=[])
    return Benchmark(task, [], 0, loaded=loaded, limit=limit, means=means)


def _means(task: Any) -> dict[str, Better]:
    """Of a task's metrics those that are a mean of their rows, and which way is better."""
    higher = task.higher_is_better()
    means = [name for name, joined in task.aggregation().items() if joined.__name__ == "mean"]
    return {name: "max" if higher.get(name, True) else "min" for name in means}


def _by_filter(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """A task can read its answers in several ways (`strict-match`, `flexible-extract`): each way has all rows."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(str(sample["filter"]), []).append(sample)
    return found


def _question(sample: Sample) -> Question:
    """Of a choice, the right answer is the text of the right choice."""
    asked, right = sample["arguments"], sample["target"]
    if _is_choice(sample) and str(right).isdecimal() and int(right) < len(asked):
        right = asked[int(right)][1].strip()
    return Question(({"role": "user", "content": asked[0][0]},), str(right))


def _said(sample: Sample) -> str:
    """What was written, or the choice that is likeliest."""
    asked, replies = sample["arguments"], sample["filtered_resps"]
    if not _is_choice(sample):
        return str(replies[0]).strip()
    likeliest = max(range(len(replies)), key=lambda number: float(replies[number][0]))
    return str(asked[likeliest][1]).strip()


def _is_choice(sample: Sample) -> bool:
    """Whether `arguments` are a (prompt, choice) each, and `filtered_resps` a (likelihood, ...) each."""
    return not isinstance(sample["filtered_resps"][0], str) and len(sample["arguments"]) > 1
