"""Who does the work on blocks: this process, or Ray's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
