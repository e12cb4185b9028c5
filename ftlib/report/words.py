"""Numbers and times as a person reads them, and text of a run made fit for a chart."""

from __future__ import annotations

import html
import math
from typing import Any

from ftlib.run.plain_text import one_line

NONE = "–"


def number(value: float | None) -> str:
    """Four significant digits: `0.06027`, `2,548`."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(value: float | None) -> str:
    """A share: 0.835 is `83.5 %`."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def setting(value: Any) -> str:
    """A value of a swept parameter."""
    return f"{value:.3g}" if isinstance(value, float) else one_line(str(value))


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def count(amount: int, thing: str) -> str:
    """`1 trial`, `8 trials`."""
    return f"{amount:,} {thing}" if amount == 1 else f"{amount:,} {thing}s"


def last_parts(paths: list[str]) -> dict[str, str]:
    """Each dotted path by its last part, where no other path has the same one."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def inert(text: str) -> str:
    """Text of a run for a chart: Plotly reads tags such as `<a>` and `<b>` in labels, and entities."""
    return html.escape(one_line(text), quote=False)
