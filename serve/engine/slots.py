"""Adapters side by side: read from the registry on first use, kept in the slots of a bank, put out by later ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftlib.errors import FtlibError
from ftlib.models.adapter_files import why_not_banked
from ftlib.registry import registry
from ftlib.registry.version import Version

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Adapter:
    """A plain LoRA adapter in memory: its tensors by the bank's names, in PEFT's shapes, its scales inside its B."""

    id: str
    rank: int
    targets: frozenset[str]
    state: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.nbytes for tensor in self.state.values())


def read_adapter(version: Version) -> Adapter:
    """A version's adapter. Raises FtlibError for what a bank cannot hold."""
    from ftlib.models.plain_lora import read_lora

    registry.check_loadable(version)
    reason = why_not_banked(version.id, version.weights)
    if reason:
        raise FtlibError(f"{version.id} cannot stand beside others in a bank: {reason}.")
    lora = read_lora(version.id, version.weights)
    return Adapter(version.id, lora.rank, frozenset(lora.ranks), lora.state)


class AdapterCache:
    """Adapters in the machine's memory, the last used ones, so that a full bank does not read the same file again.

    Used from several threads: a request reads its adapter while the batch goes on.
    """

    def __init__(self, size: int, read: Callable[[Version], Adapter] = read_adapter) -> None:
        self._size, self._read = size, read
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, version: Version) -> Adapter:
        with self._lock:
            if version.id in self._adapters:
                self._adapters.move_to_end(version.id)
                return self._adapters[version.id]
        adapter = self._read(version)
        with self._lock:
            self._adapters[version.id] = adapter
            while len(self._adapters) > self._size:
                self._adapters.popitem(last=False)
        return adapter


class Slots:
    """The slots of a bank over `model`: who is in which, who is in use, who goes when room is needed.

    Adapters in use stand in the first slots, since a `Mix` reads them as one view. The bank is made for the adapters
    that come: one of a larger rank, or of other layers, makes it anew.
    """

    def __init__(self, model: Any, count: int, dtype: torch.dtype) -> None:
        self.hits = self.misses = self.evictions = 0
        self._model, self._count, self._dtype = model, count, dtype
        self._bank: Any = None
        self._held: list[Adapter | None] = [None] * count
        self._users: dict[str, int] = {}  # of the adapters in use: the first len(_users) slots
        self._recent: OrderedDict[str, None] = OrderedDict()  # least recently used first

    def hold(self, adapter: Adapter) -> bool:
        """Has the adapter in a slot until `free`. False when all slots are in use by others."""
        place = self._place(adapter.id)
        if place is None:
            place = self._make_room()
            if place is None:
                return False
            self.misses += 1
            self._load(place, adapter)
        else:
            self.hits += 1
        if adapter.id not in self._users:
            self._swap(place, len(self._users))
        self._users[adapter.id] = self._users.get(adapter.id, 0) + 1
        self._recent[adapter.id] = None
        self._recent.move_to_end(adapter.id)
        return True

    def free(self, id: str) -> None:
        """One user less. The adapter stays until its slot is needed."""
        self._users[id] -= 1
        if not self._users[id]:
            place = self._place(id)
            assert place is not None
            self._swap(place, len(self._users) - 1)
            del self._users[id]

    def free_all(self) -> None:
        """Nobody uses any of them."""
        self._users.clear()

    @contextmanager
    def mixed(self, ids: Sequence[str | None]) -> Iterator[None]:
        """Within, row i of a batch has the adapter ids[i], which is held, or none."""
        from ftlib.models.bank_routes import Mix

        places = {adapter.id: place for place, adapter in enumerate(self._held) if adapter}
        with self._bank.routed(Mix([None if id is None else places[id] for id in ids], self._bank.device)):
            yield

    @property
    def resident(self) -> list[str]:
        return [adapter.id for adapter in self._held if adapter]

    def _place(self, id: str) -> int | None:
        return next((place for place, adapter in enumerate(self._held) if adapter and adapter.id == id), None)

    def _make_room(self) -> int | None:
        if None in self._held:
            return self._held.index(None)
        idle = next((id for id in self._recent if id not in self._users), None)
        if idle is None:
            return None
        self.evictions += 1
        del self._recent[idle]
        place = self._place(idle)
        assert place is not None
        self._held[place] = None
        return place

    def _load(self, place: int, adapter: Adapter) -> None:
        bank = self._bank
        if bank is None or adapter.rank > bank.rank or not adapter.targets <= set(bank.targets):
            self._widen(adapter)
        self._held[place] = adapter
        self._bank.load(place, adapter.state)

    def _widen(self, adapter: Adapter) -> None:
        """A bank that has room for this adapter too."""
        from ftlib.models.plain_lora import serving_bank

        old = self._bank
        targets, rank = set(adapter.targets), adapter.rank
        if old is not None:
            targets, rank = targets | set(old.targets), max(rank, old.rank)
            old.detach()
        self._bank = serving_bank(self._model, targets, self._count, rank, self._dtype)
        for place, held in enumerate(self._held):
            if held is not None:
                self._bank.load(place, held.state)

    def _swap(self, one: int, other: int) -> None:
        if one != other:
            self._bank.swap(one, other)
            self._held[one], self._held[other] = self._held[other], self._held[one]
