"""A pipeline as its page shows it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.pipelines.names import Loaded
from ftlib.report.pipeline_page import ShownPipeline, ShownStep
from ftlib.run.layout import REPORT
from ftlib.run.pipelines import Record

if TYPE_CHECKING:
    from ftlib.pipelines.runner import Outcome

WORDS = {"card": "card", "answers": "answers", "numbers": "numbers", "dropped": "rows that were dropped"}
OPEN = ("running", "interrupted", "failed")  # states of a record that say more than `not looked at`


def shown(outcome: Outcome) -> ShownPipeline:
    """The steps with what is known of each."""
    plan = outcome.plan
    steps = [_step(outcome, name) for name in plan.needs]
    facts = [f"done again when {plan.pipeline.when}"] if plan.pipeline.when else []
    if plan.folder.until is not None and plan.pipeline.when:
        taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(plan.folder.until))
        facts.append(f"sampled requests until {taken}")
    return ShownPipeline(plan.pipeline.name, str(plan.folder.path), steps, facts)


def _step(outcome: Outcome, name: str) -> ShownStep:
    plan = outcome.plan
    loaded, record = plan.loaded[name], plan.folder.record(name)
    state, why = outcome.state_of(name), outcome.waiting.get(name, outcome.failed.get(name, ""))
    if state == "not looked at" and record is not None:
        state, why = (record.state, record.why) if record.state in OPEN else ("done before", "")
    if record is None:
        return ShownStep(name, _what(loaded), plan.needs[name], state, why)
    return ShownStep(
        name,
        _what(loaded),
        plan.needs[name],
        state,
        why,
        record.made,
        record.began,
        record.seconds,
        record.figures,
        record.notes,
        list(_links(record, plan.folder.path)),
        record.places.get("run", ""),
    )


def _what(loaded: Loaded) -> str:
    """`sweep sft.yaml`."""
    value = getattr(loaded.step, loaded.step.kind)
    return f"{loaded.step.kind} {', '.join(value) if isinstance(value, list) else value}"


def _links(record: Record, folder: Path) -> Iterator[tuple[str, str]]:
    if run := record.places.get("run"):
        report = Path(run) / REPORT
        yield (
            (f"report of {Path(run).name}", _from(report, folder))
            if report.is_file()
            else (run, _from(Path(run), folder))
        )
    for key, word in WORDS.items():
        if place := record.places.get(key):
            yield word, _from(Path(place), folder)
    if url := record.places.get("url"):
        yield url, url


def _from(place: Path, folder: Path) -> str:
    return Path(os.path.relpath(place, folder)).as_posix()
