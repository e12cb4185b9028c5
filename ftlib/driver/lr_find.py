"""`ftlib lr-find`, and `sweep.lr_find`: the range of learning rates that a sweep should look at, found in minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.errors import ConfigError, FtlibError, InputError

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.data import Prepared
    from ftlib.pack.rate_test import Suggested, Tried

RATE = "train.learning_rate"
WIDEST = (1e-6, 1e-1)  # what is tried where the experiment names no range
MOST = 64  # rates of a test


@dataclass(frozen=True)
class Found:
    """What a test has found; `range` is None where no rate has learned anything."""

    tried: list[Tried]
    range: Suggested | None

    @property
    def sentence(self) -> str:
        """What a person reads of it."""
        if self.range is None:
            return "no rate has learned anything: look at the data, or give the test more steps"
        low, high = self.range.low, self.range.high
        return f"{RATE}: {{min: {low:g}, max: {high:g}, log: true}} (the best of the test: {self.range.best:g})"


def find(
    experiment: Experiment,
    data: Prepared,
    low: float | None = None,
    high: float | None = None,
    steps: int | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Found:
    """Tries rates from `low` to `high`; where these are not given, those of the sweep's range, or 1e-6 to 1e-1.

    Raises InputError for bounds that are none, ConfigError for an experiment whose trials no pack can hold.
    """
    from ftlib.pack.rate_test import STEPS, rates_between, suggested, try_rates

    check(experiment)
    first, last = _bounds(experiment)
    low, high = low or first, high or last
    if not 0 < low < high:
        raise InputError(f"--from {low:g} must be above 0 and below --to {high:g}.")
    rates = rates_between(low, high)
    if len(rates) > MOST:
        raise InputError(f"from {low:g} to {high:g} there are {len(rates)} rates, and a test has at most {MOST}.")
    tried = try_rates(experiment, data, rates, steps or STEPS, say)
    return Found(tried, suggested(tried))


def check(experiment: Experiment) -> None:
    """Raises ConfigError for an experiment whose rates cannot be tried side by side."""
    from ftlib.config.packs import why_not_packed

    alone = experiment.model_copy(update={"sweep": None})
    if (why := why_not_packed(alone)) is not None:
        raise ConfigError(f"lr-find tries rates side by side in a pack: {why}.")
    if not experiment.data.held_out:
        raise ConfigError("lr-find compares rates on held-out rows: set data.eval_split or data.eval.")


def narrowed(experiment: Experiment, data: Prepared, say: Callable[[str], None]) -> Experiment:
    """The experiment of a sweep that asks for `lr_find`, with the found range inside of its own."""
    from ftlib.config import Range

    assert experiment.sweep is not None
    found, own = find(experiment, data), experiment.sweep.space.get(RATE)
    if found.range is None or not isinstance(own, Range):
        raise FtlibError(f"sweep.lr_find: {found.sentence}.")
    low, high = max(found.range.low, own.min), min(found.range.high, own.max)
    say(f"lr-find: {found.sentence}")
    narrow = own.model_copy(update={"min": low, "max": high}) if low < high else own
    space = {**experiment.sweep.space, RATE: narrow}
    return experiment.model_copy(update={"sweep": experiment.sweep.model_copy(update={"space": space})})


def write_page(found: Found, experiment: Experiment, file: Path) -> None:
    """The test as a page of HTML. Raises FtlibError where nothing can be written."""
    from ftlib.report.rates_page import ShownRate, ShownTest, write_rates

    shown = [ShownRate(one.rate, one.losses, one.after) for one in found.tried]
    low, high = (found.range.low, found.range.high) if found.range is not None else (0.0, 0.0)
    write_rates(file, ShownTest(experiment.name, shown, found.tried[0].before, found.sentence, low, high))


def _bounds(experiment: Experiment) -> tuple[float, float]:
    from ftlib.config import Range

    told = experiment.sweep.space.get(RATE) if experiment.sweep is not None else None
    return (told.min, told.max) if isinstance(told, Range) else WIDEST
