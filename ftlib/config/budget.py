"""`budget:` what a sweep may take. When it is over, trials are stopped where they stand and the leaderboard closes."""

from __future__ import annotations

from pydantic import Field

from ftlib.config.section import Section


class BudgetSection(Section):
    """`max_cost` is in the currency of `scale.price_per_hour`; `max_hours` is the sweep's, all resumes together."""

    max_cost: float | None = Field(default=None, gt=0)
    """The sweep ends when it has cost so much, in the currency of scale.price_per_hour. It needs that price. null has
    no limit."""
    max_hours: float | None = Field(default=None, gt=0)
    """The sweep ends when it has run for so many hours, all resumes together. null has no limit."""
