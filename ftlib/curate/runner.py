"""A recipe over its sources: read in blocks, passed over, decided about.

Everything goes through the store: what is there is not made again. So a build that was killed goes on at the blocks
that it was working on, and a build whose last step has changed does that one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from ftlib.config.recipe import Recipe
from ftlib.curate.blocks import to_table
from ftlib.curate.passes import Counts, Done, KeyedStep, Pass, do_pass, keyed_steps, passes_of, sign_key, total
from ftlib.curate.reading import read_parts
from ftlib.curate.sources import Part, together
from ftlib.curate.step import WholeStep
from ftlib.curate.store import Store, key_of, key_of_table
from ftlib.curate.workers import Threads, Workers
from ftlib.errors import DataError

Tick = Callable[[], None]


class Progress(Protocol):
    """Who is told how far a build is."""

    def counted(self, what: str, total: int) -> AbstractContextManager[Tick]:
        """While the block lasts, `what` is done `total` times; what it gives is called after each."""


class Silent:
    """Nobody is told."""

    def counted(self, what: str, total: int) -> AbstractContextManager[Tick]:
        return nullcontext(lambda: None)


@dataclass(frozen=True)
class Build:
    """What a recipe came to: its last blocks in order, and all that passes said of rows (`noted`: keys whose notes tell
    what was dropped and changed). `counts` has the steps in order, "read" first."""

    recipe: Recipe
    store: Store
    parts: tuple[Part, ...]
    blocks: tuple[Done, ...]
    noted: tuple[str, ...]
    counts: Counts

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)


def build(recipe: Recipe, parts: Sequence[Part], workers: Workers, progress: Progress | None = None) -> Build:
    """Does a recipe with the parts of its sources (`all_parts`). Raises InputError for settings that cannot be used,
    and DataError for a source that cannot be read and where no row is left."""
    return _through(recipe, parts, workers, progress or Silent(), passes_of(keyed_steps(recipe)))


def before_asking(
    recipe: Recipe, parts: Sequence[Part], workers: Workers, progress: Progress | None = None
) -> tuple[Build, list[KeyedStep]]:
    """A recipe done up to its first step that asks teachers, whose signs are beside the last blocks; and all its steps
    that ask. Raises as `build`."""
    steps = keyed_steps(recipe)
    ask = [step for step in steps if isinstance(step.step, WholeStep) and step.step.asks]
    passes = passes_of(steps)
    if ask:
        passes = passes[: 1 + next(number for number, one in enumerate(passes) if one.end is ask[0])]
    return _through(recipe, parts, workers, progress or Silent(), passes, decides=not ask), ask


def _through(
    recipe: Recipe,
    parts: Sequence[Part],
    workers: Workers,
    progress: Progress,
    passes: Sequence[Pass],
    decides: bool = True,
) -> Build:
    """The passes, one after the other. Without `decides` nothing is decided after the last one."""
    store = Store.of(recipe.storage)
    read = _all(workers, progress, "read", partial(read_parts, store), together(parts))
    blocks = [block for of_part in read for block in of_part]
    _some(blocks, "no row could be read")
    everything = list(blocks)
    verdicts: list[str | None] = [None] * len(blocks)
    for one in passes:
        items = [(block.key, verdict) for block, verdict in zip(blocks, verdicts, strict=True)]
        blocks = _all(_who(one, workers), progress, _named(one), partial(_pass, store, one), items)
        everything += blocks
        last = one.steps[-1].key if one.steps else "read"
        _some(blocks, f"steps: after {last} no row is left{_why(blocks, last)}")
        verdicts = [None] * len(blocks)
        if one.end is not None and (decides or one is not passes[-1]):
            verdicts = _decided(store, one.end, [block.key for block in blocks])
    counts = total(block.counts for block in everything)
    return Build(recipe, store, tuple(parts), tuple(blocks), tuple(block.key for block in everything), counts)


def _who(one: Pass, workers: Workers) -> Workers:
    """Who does a pass: threads of this process where its step has to know all that it asks."""
    alone = one.begin is not None and isinstance(one.begin.step, WholeStep) and one.begin.step.in_one_process
    return Threads() if alone else workers


def _pass(store: Store, work: Pass, item: tuple[str, str | None]) -> Done:
    return do_pass(store, work, *item)


def _all(
    workers: Workers, progress: Progress, what: str, work: Callable[[Any], Any], items: Sequence[Any]
) -> list[Any]:
    """The results of all items, in their order."""
    results: list[Any] = [None] * len(items)
    with progress.counted(what, len(items)) as tick:
        for number, result in workers.map(work, items):
            results[number] = result
            tick()
    return results


def _decided(store: Store, step: KeyedStep, blocks: Sequence[str]) -> list[str | None]:
    """The keys of what a whole step decides about each block. A verdict has its content as its key, so that a block
    about which the same is decided is not made again."""
    assert isinstance(step.step, WholeStep)
    key = key_of("verdicts", step.digest, blocks)
    about = store.about(key)
    if about is None:
        signs = [store.get(sign_key(block)) for block in blocks]
        verdicts = step.step.decide(signs, step.settings, step.context)
        about = {"verdicts": [_kept(store, verdict) for verdict in verdicts]}
        store.put(key, to_table([]), about)
    return list(about["verdicts"])


def _kept(store: Store, verdict: Any) -> str:
    key = key_of_table(verdict)
    if store.about(key) is None:
        store.put(key, verdict)
    return key


def _some(blocks: Sequence[Done], why: str) -> None:
    if not any(block.rows for block in blocks):
        raise DataError(f"{why}: there is nothing to train on.")


def _why(blocks: Sequence[Done], step: str) -> str:
    """The reasons for which a step has dropped rows, in brackets."""
    dropped = total(block.counts for block in blocks).get(step, {}).get("dropped", {})
    told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
    return f" ({told})" if told else ""


def _named(one: Pass) -> str:
    return ", ".join(step.key for step in one.steps) or "look"
