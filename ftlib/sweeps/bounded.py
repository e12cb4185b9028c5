"""Ray Tune's placement groups, no more at once than a sweep's share of the cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.air.execution.resources.request import ResourceRequest

from ftlib.sweeps.tune_private import OpenPlacementGroups


class Bounded(OpenPlacementGroups):
    """Tune's placement groups, no more at once than `limit` says: the others are asked for when they may be."""

    limit: Callable[[], int | None]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:  # Ray's `clear` calls it again
        super().__init__(*arguments, **keywords)
        self.held_back: Counter[ResourceRequest] = Counter()

    def request_resources(self, resource_request: ResourceRequest) -> None:
        self.held_back[resource_request] += 1
        self._fit()

    def cancel_resource_request(self, resource_request: ResourceRequest) -> None:
        if self.held_back[resource_request]:
            self.held_back[resource_request] -= 1
        else:
            super().cancel_resource_request(resource_request)

    def update_state(self) -> None:
        self._fit()
        super().update_state()

    def _fit(self) -> None:
        limit = self.limit()
        for request in list(self.held_back):
            while self.held_back[request] and (limit is None or self.asked_for < limit):
                self.held_back[request] -= 1
                super().request_resources(request)
            while limit is not None and self.asked_for > limit and self.is_waiting(request):
                super().cancel_resource_request(request)
                self.held_back[request] += 1


def bounded(limit: Callable[[], int | None]) -> Bounded:
    """A `Bounded` for Tune, which makes it without arguments of ours."""
    manager = Bounded()
    manager.limit = limit
    return manager
