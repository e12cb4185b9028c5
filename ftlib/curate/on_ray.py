"""Blocks on Ray Data: one task a block, on as many cores as the cluster has or as are asked for.

Ray does a task again whose worker or machine is lost. A task returns keys and counts; rows go through the store, which
all machines have to reach: a folder that they share, or a URL.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from ftlib.cluster.session import start_ray
from ftlib.errors import FtlibError


class OnRay:
    """Ray's workers, `count` of them; None is one on each core."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """As `Workers.map`. Raises FtlibError where a worker does, and where the cluster is lost."""
        if not items:
            return
        start_ray(self._count)
        _quiet()
        given = ray.put(list(items))
        numbers = ray.data.range(len(items), override_num_blocks=len(items))
        done = numbers.map_batches(
            _on_block,
            batch_size=1,
            fn_args=(work, [given]),
            compute=ray.data.TaskPoolStrategy(size=self._count),
            num_cpus=1,
        )
        for number, result in _results(done):
            if isinstance(result, FtlibError):
                raise result
            yield number, result


def _results(done: ray.data.Dataset) -> Iterator[tuple[int, Any]]:
    """The results as they come. Raises FtlibError for what Ray could not do, also when it was done again."""
    try:
        for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
            yield int(batch["id"][0]), pickle.loads(batch["result"][0])
    except RayError as error:
        why = str(error).strip().splitlines()[-1]
        raise FtlibError(f"Ray has ended the build: {why}. What is done stays: build again.") from error


def _on_block(batch: dict[str, Any], work: Callable[[Any], Any], given: list[Any]) -> dict[str, Any]:
    """In a worker. What a person can mend is a result, so that Ray does not wrap it."""
    number = int(batch["id"][0])
    try:
        result: Any = work(ray.get(given[0])[number])
    except FtlibError as error:
        result = error
    return {"id": batch["id"], "result": [pickle.dumps(result)]}


def _quiet() -> None:
    """Ray Data draws bars and logs of its own, through ours."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
