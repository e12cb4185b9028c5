"""Who is next: a bounded queue in which every adapter has its turn, and a flood of one cannot keep out the others."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items by key, at most `limit` of them. Not safe between threads: its owner holds a lock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()  # the key that waits longest for a turn first

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Item]:
        for line in self._lines.values():
            yield from line

    def put(self, key: str, item: Item) -> Item | None:
        """Queues the item. Returns what has no place any more, or None: when full, the longest line gives up its last,
        which may be this item."""
        self._lines.setdefault(key, deque()).append(item)
        if len(self) <= self.limit:
            return None
        longest = max(self._lines, key=lambda user: (len(self._lines[user]), user == key))
        dropped = self._lines[longest].pop()
        self._forget(longest)
        return dropped

    def take(self, active: Counter[str], fits: Callable[[Item], bool]) -> Item | None:
        """The next item that fits now: of the key with the fewest `active`, and among those of the longest without a
        turn. Each line keeps its order."""
        for key in sorted(self._lines, key=lambda user: active[user]):
            if fits(self._lines[key][0]):
                item = self._lines[key].popleft()
                self._lines.move_to_end(key)
                self._forget(key)
                return item
        return None

    def remove(self, key: str, item: Item) -> bool:
        """Takes an item out again. False when it is not there (any more)."""
        if item not in self._lines.get(key, ()):
            return False
        self._lines[key].remove(item)
        self._forget(key)
        return True

    def _forget(self, key: str) -> None:
        if not self._lines[key]:
            del self._lines[key]
