"""What a step asks of its teachers, before it asks: of what its blocks signed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftlib.config.recipe.teacher import TeacherSection

if TYPE_CHECKING:
    import pyarrow as pa


def sentences(key: str, teachers: Sequence[TeacherSection], signs: Sequence[pa.Table]) -> list[str]:
    """A sentence on each teacher: requests, tokens, and money where prices are known."""
    totals = [[0.0, 0.0, 0.0] for _ in teachers]
    for table in signs:
        for line in table.to_pylist():
            for place, name in enumerate(("requests", "read", "written")):
                totals[line["teacher"]][place] += line[name]
    return [_sentence(key, section, *total) for section, total in zip(teachers, totals, strict=True)]


def _sentence(key: str, section: TeacherSection, requests: float, read: float, written: float) -> str:
    told = (
        f"{key}: {requests:,.0f} requests to {section.name or section.model}: about {read:,.0f} "
        f"tokens to read, at most {written:,.0f} to write"
    )
    if section.price_per_million is None:
        return f"{told}."
    cost = read * section.prices[0] + written * section.prices[1]
    limit = "" if section.max_cost is None else f" The budget is {section.max_cost:,.2f}."
    return f"{told}. That costs at most about {cost:,.2f}.{limit}"
