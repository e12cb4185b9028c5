"""Prompts with a common beginning read it once: keys and values of prompts that were read lately, for those that begin
alike.

A system prompt, a template's opening, few-shot examples, the turns of a chat so far: another prompt reads on behind
what it shares. What was read stays where its pass put it; nothing is copied until somebody shares it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from serve.engine.sequence import Sequence

LEAST = 16  # tokens that are worth sharing: a pass more costs about as much
KEPT = 8192  # tokens of prompts, with what filled them up; those that were used longest ago go first


@dataclass(eq=False)
class Read:
    """A prompt that was read: row `row` of the cache of its pass."""

    owner: tuple[str | None, str]
    prompt: list[int]
    cache: Any
    row: int


@dataclass(frozen=True)
class Shared:
    """What a prompt begins with: the first `length` tokens of one that was read."""

    read: Read | None = None
    length: int = 0


NOTHING = Shared()


class Prefixes:
    """The last prompts. Only the same adapter reads a beginning alike, and only the same client may find out, by the
    time that an answer takes, what was asked before."""

    def __init__(self, tokens: int = KEPT) -> None:
        self._most, self._tokens = tokens, 0
        self._kept: OrderedDict[Read, None] = OrderedDict()  # used longest ago first

    def find(self, sequence: Sequence) -> Shared:
        """The longest beginning that is kept. A prompt's last token is read anew: what follows it is asked."""
        owner, prompt, found = sequence.owner, sequence.prompt[:-1], NOTHING
        for read in self._kept:
            if read.owner == owner and (length := common(read.prompt, prompt)) > found.length:
                found = Shared(read, length)
        if found.length < LEAST or found.read is None:
            return NOTHING
        self._kept.move_to_end(found.read)
        return found

    def keep(self, sequence: Sequence, cache: Any, row: int) -> None:
        """A prompt that was read, unless another begins with all of it. A NaN is kept too: its owner's other prompts
        would meet it anyway."""
        owner, prompt = sequence.owner, sequence.prompt
        there = any(read.owner == owner and read.prompt[: len(prompt)] == prompt for read in self._kept)
        if len(prompt) > LEAST and not there:
            self._kept[Read(owner, prompt, cache, row)] = None
            self._tokens += cache.get_seq_length()
        while self._tokens > self._most:
            self._tokens -= self._kept.popitem(last=False)[0].cache.get_seq_length()

    def clear(self) -> None:
        """Forgets all of them."""
        self._kept.clear()
        self._tokens = 0


def begun(shared: Tokens[Shared], length: int) -> Any:
    """The cache of a pass that reads on behind the first `length` tokens: a row for each."""
    cache = DynamicCache()
    reads = [entry.read for entry in shared if entry.read is not None and length]
    for number in range(len(reads[0].cache.layers) if reads else 0):
        own = [(read.cache.layers[number], read.row) for read in reads]
        keys = torch.stack([layer.keys[row, :, :length] for layer, row in own])
        values = torch.stack([layer.values[row, :, :length] for layer, row in own])
        cache.update(keys, values, number)
    return cache


def leaders(waiting: Tokens[Sequence], known: Tokens[int]) -> list[bool]:
    """Which of the prompts are read now: all but those that share more with one before them, which is read now, than
    the `known` tokens that they share with what was read already."""
    found: list[bool] = []
    for number, (sequence, length) in enumerate(zip(waiting, known, strict=True)):
        before = [one for one, leads in zip(waiting[:number], found, strict=True) if leads]
        found.append(
            all(
                one.owner != sequence.owner or common(one.prompt, sequence.prompt[:-1]) < length + LEAST
                for one in before
            )
        )
    return found


def common(one: list[int], other: list[int]) -> int:
    """How many tokens two prompts begin with alike: halving, as lists compare faster than a loop."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
