"""All steps of a pipeline in their order. What each came to is written before the next one begins, so a kill costs the
step that was under way, and that goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.errors import FtlibError
from ftlib.files.atomic import write_text
from ftlib.pipelines.plan import Due, Plan
from ftlib.pipelines.work import Result, Setting, do
from ftlib.run.pipelines import PIPELINE, Record

if TYPE_CHECKING:
    from ftlib.driver.listener import Listener


@dataclass
class Outcome:
    """What a pipeline came to. `done` and `skipped` are steps, `failed` and `waiting` the reason of each."""

    plan: Plan
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    interrupted: str | None = None

    def state_of(self, step: str) -> str:
        """`done`, `unchanged`, `failed`, `waiting`, `interrupted`, or `not looked at`."""
        if step == self.interrupted:
            return "interrupted"
        if step in self.done:
            return "done"
        if step in self.skipped:
            return "unchanged"
        return "failed" if step in self.failed else "waiting" if step in self.waiting else "not looked at"


def run(
    plan: Plan,
    text: str,
    listener: Listener,
    again: Collection[str] = (),
    only: str | None = None,
    new_round: bool = False,
) -> Outcome:
    """Does what is to be done. `text` is the pipeline as its author wrote it; steps in `again` are done although
    nothing has changed; with `only`, no other step is looked at. `new_round`: the requests that were sampled until now
    become rows.

    A step that fails stops those that need it; the others are done. A Ctrl-C ends it, and the outcome says so. Raises
    FtlibError where another process works on the pipeline.
    """
    with plan.folder.locked():
        write_text(plan.folder.path / PIPELINE, text)
        if new_round or plan.folder.until is None:
            plan.folder.begin_round(time.time())
        outcome = Outcome(plan)
        try:
            for name in plan.needs if only is None else (only,):
                _step(name, outcome, listener, name in again, alone=only is not None)
                write_page(outcome, listener)
        except KeyboardInterrupt:
            pass
        plan.contents.save()
        write_page(outcome, listener)
    return outcome


def _step(name: str, outcome: Outcome, listener: Listener, again: bool, alone: bool) -> None:
    plan = outcome.plan
    missing = [need for need in plan.needs[name] if _is_missing(need, outcome, alone)]
    if missing:
        why = f"it needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not done"
        outcome.waiting[name] = why
        listener.say(f"{name}: is not done: {why}")
        return
    try:
        due = plan.due(name, plan.folder.until, again)
        if due is None:
            outcome.skipped.append(name)
            listener.say(f"{name}: nothing has changed")
            return
        _do(name, due, outcome, listener)
    except KeyboardInterrupt:
        outcome.interrupted = name
        raise
    except FtlibError as error:
        _failed(name, str(error), outcome, listener)
    except Exception as error:  # whatever a library raises: the other steps are done
        _failed(name, f"{type(error).__name__}: {error}", outcome, listener)


def _is_missing(need: str, outcome: Outcome, alone: bool) -> bool:
    """Whether a step that is needed has no result. One that is done alone takes what the others came to before."""
    if not alone:
        return need in outcome.failed or need in outcome.waiting
    record = outcome.plan.folder.record(need)
    return record is None or record.state != "done"


def _do(name: str, due: Due, outcome: Outcome, listener: Listener) -> None:
    plan, folder = outcome.plan, outcome.plan.folder
    before = folder.record(name) if due.goes_on else None
    record = Record("running", due.inputs, time.time(), places=dict(before.places) if before else {})
    folder.keep(name, record)
    write_page(outcome, listener)
    listener.say(f"{name}: {due.why}")

    def keep(places: dict[str, str]) -> None:
        nonlocal record
        record = replace(record, places={**record.places, **places})
        folder.keep(name, record)
        write_page(outcome, listener)

    winners = {other: found.places for other in plan.needs if _trained(plan, other) and (found := folder.record(other))}
    setting = Setting(listener, folder.files_of(name), dict(record.places), winners, folder.until, keep)
    try:
        result = do(plan.loaded[name].step, setting)
    except KeyboardInterrupt:
        folder.keep(name, record.ended("interrupted"))
        raise
    except Exception as error:
        folder.keep(name, record.ended("failed", _sentence(error)))
        raise
    record = _with(record, result).ended("done")
    folder.keep(name, record)
    outcome.done.append(name)
    made = f": {record.made}" if record.made else ""
    listener.say(f"{name}: done in {record.seconds:.1f} s{made}")


def _with(record: Record, result: Result) -> Record:
    return replace(
        record, made=result.made, places=dict(result.places), figures=dict(result.figures), notes=list(result.notes)
    )


def _failed(name: str, why: str, outcome: Outcome, listener: Listener) -> None:
    outcome.failed[name] = why
    listener.warn(f"{name} failed: {why}")
    if outcome.plan.folder.record(name) is None:  # it failed before it was begun
        outcome.plan.folder.keep(name, Record("failed", {}, time.time(), why=why))


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, FtlibError) else f"{type(error).__name__}: {error}"


def _trained(plan: Plan, name: str) -> bool:
    return plan.pipeline.trains(name)


def write_page(outcome: Outcome, listener: Listener) -> Path:
    """Writes the page. A page that fails ends nothing: what was done is there without it."""
    page = outcome.plan.folder.page
    try:
        from ftlib.pipelines.shown import shown
        from ftlib.report.pipeline_page import write_pipeline_page

        write_pipeline_page(shown(outcome), page.parent)
    except Exception as error:
        listener.warn(f"the page is not written: {type(error).__name__}: {error}")
    return page
