"""What every adapter says of itself."""

from __future__ import annotations

from typing import Literal

from ftlib.config.section import Section

Modules = str | list[str]  # "all-linear", a regular expression over module names, or a list of their last parts


class Adapter(Section):
    """What every adapter says of itself."""

    @property
    def saves(self) -> Literal["adapter", "model"]:
        """What a trial leaves: an adapter beside its base, or a whole model."""
        return "adapter"

    @property
    def mergeable(self) -> bool:
        """Whether what it computes can be written into the base's own matrices."""
        return True

    @property
    def moves_base(self) -> bool:
        """Whether it starts by taking a part out of the base's weights."""
        return False

    @property
    def calibrated(self) -> bool:
        """Whether its first weights are computed from training batches."""
        return False
