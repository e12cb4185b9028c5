"""Who does the work on blocks: this process, threads of it, or Ray's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """`map` does a function's work on items, and gives the results in the order in which they come, each with the
    number of its item. The function and the items are picklable; what it raises of FtlibError is raised here."""

    def map(self, work: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]: ...


class Here:
    """This process, one item after another."""

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        for number, item in enumerate(items):
            yield number, work(item)


class Threads:
    """Threads of this process, for work that waits for others."""

    def __init__(self, count: int = 8) -> None:
        self._count = count

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
        with ThreadPoolExecutor(self._count) as pool:
            numbers = {pool.submit(work, item): number for number, item in enumerate(items)}
            try:
                for future in as_completed(numbers):
                    yield numbers[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
