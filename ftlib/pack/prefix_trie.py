"""Where the tokens of several sequences stand when what sequences begin with alike is computed once: as a trie.

A token of a causal model sees what is before it, and nothing else. So sequences that begin with the same tokens have
the same hidden states there, and one place serves them all; attention of what comes after looks back along the path.
(Prefix sharing in training: Wang and Hegde 2024, arXiv:2410.20305, for pairs; here with any number of branches.)

    [a system prompt] ─┬─ [a question] ─┬─ [the chosen answer]
                       │                └─ [the rejected answer]
                       └─ [another question ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

LEAST = 16  # places that a branching saves at least: its span costs a block of attention of its own
PAYS = 0.1  # of all places; where branchings save less, the sequences stand apart


@dataclass(frozen=True)
class Span:
    """Tokens side by side, computed once: the last `length` of `path`, the places from a sequence's first token on."""

    length: int
    path: np.ndarray

    @property
    def depth(self) -> int:
        """How many tokens come before it."""
        return len(self.path) - self.length


@dataclass(frozen=True)
class Standing:
    """`of`: of each sequence, the places of its tokens."""

    spans: tuple[Span, ...]
    of: tuple[np.ndarray, ...]

    @property
    def places(self) -> int:
        """How many places are taken: 0 to this number, without a gap."""
        return sum(span.length for span in self.spans)


def apart(sequences: Sequence[np.ndarray]) -> Standing:
    """One sequence behind the other."""
    ends = np.cumsum([len(ids) for ids in sequences])
    places = tuple(np.arange(end - len(ids), end) for ids, end in zip(sequences, ends, strict=True))
    return Standing(tuple(Span(len(path), path) for path in places if len(path)), places)


def together(sequences: Sequence[np.ndarray]) -> Standing:
    """What sequences begin with alike stands once, where that saves `PAYS` of the places; apart where it does not."""
    if len(sequences) < 2:
        return apart(sequences)
    shared = _standing(_trie(sequences), len(sequences))
    return shared if shared.places <= (1 - PAYS) * sum(map(len, sequences)) else apart(sequences)


def in_order(sequences: Sequence[np.ndarray]) -> list[int]:
    """The numbers of the sequences, sorted by their tokens: neighbours have most in common."""
    return sorted(range(len(sequences)), key=lambda number: sequences[number].astype(">u4").tobytes())


def common(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other))
    differ = one[:most] != other[:most]
    return int(differ.argmax()) if differ.any() else most


@dataclass
class _Node:
    """Tokens up to number `end` of `sequence`, from its parent's end on. A leaf is a whole sequence."""

    end: int
    sequence: int
    children: list[_Node] = field(default_factory=list)


def _trie(sequences: Sequence[np.ndarray]) -> _Node:
    """Built along the sorted sequences: a node is closed when the next sequence shares less than it holds."""
    first, *others = order = in_order(sequences)
    growing, closed = [_Node(0, first)], [_Node(len(sequences[first]), first)]
    for before, number in zip(order, others, strict=False):
        shared = common(sequences[before], sequences[number])
        closed = _close(growing, closed, shared)
        if growing[-1].end < shared:
            growing.append(_Node(shared, number))
        growing[-1].children += closed
        closed = [_Node(len(sequences[number]), number)]
    root = growing[0]
    root.children += _close(growing, closed, 0)
    return root


def _close(growing: list[_Node], closed: list[_Node], shared: int) -> list[_Node]:
    """Ends the nodes that reach beyond `shared`. One that saves too little gives its tokens to its children."""
    while growing[-1].end > shared:
        node = growing.pop()
        node.children += closed
        begin = max(shared, growing[-1].end)
        pays = (len(node.children) - 1) * (node.end - begin) >= LEAST
        closed = [node] if pays else node.children
    return closed


def _standing(root: _Node, count: int) -> Standing:
    spans: list[Span] = []
    of = [np.zeros(0, dtype=np.int64)] * count
    place, waiting = 0, [(root, of[0])]
    while waiting:
        node, path = waiting.pop()
        if length := node.end - len(path):
            path = np.concatenate([path, np.arange(place, place := place + length)])
            spans.append(Span(length, path))
        waiting += [(child, path) for child in reversed(node.children)]
        if not node.children:
            of[node.sequence] = path
    return Standing(tuple(spans), tuple(of))
