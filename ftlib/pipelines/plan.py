"""What is to be done of a pipeline, and why."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ftlib.config.pipeline import MonitorStep, Pipeline, ServeStep
from ftlib.errors import InputError, nearest
from ftlib.files.contents import Contents
from ftlib.files.urls import is_url
from ftlib.pipelines import endpoint
from ftlib.pipelines.inputs import changes, inputs_of, named_elsewhere
from ftlib.pipelines.names import DATA, REGISTRY, Loaded, load_steps, makers, needs_of
from ftlib.run.layout import RESOLVED
from ftlib.run.pipelines import CONTENTS, Inputs, PipelineFolder, Record

REDONE = ("running", "interrupted", "failed")


@dataclass(frozen=True)
class Due:
    """Why a step is to be done, and what it depends on now. `goes_on`: what was begun of it before is continued."""

    why: str
    inputs: Inputs
    goes_on: bool = False


@dataclass(frozen=True)
class Plan:
    """A pipeline with its files read, its order, and what is known of each step."""

    pipeline: Pipeline
    loaded: dict[str, Loaded]
    needs: dict[str, list[str]]
    folder: PipelineFolder

    @classmethod
    def of(cls, pipeline: Pipeline) -> Plan:
        """Raises ConfigError for files that cannot be used, and for names that are not there."""
        loaded = load_steps(pipeline)
        return cls(pipeline, loaded, needs_of(pipeline, loaded), PipelineFolder.of(pipeline.storage, pipeline.name))

    @cached_property
    def contents(self) -> Contents:
        return Contents(self.folder.path / CONTENTS)

    @cached_property
    def makers(self) -> dict[str, str]:
        return makers(self.loaded)

    def check_name(self, step: str) -> None:
        """Raises InputError for what is no step."""
        if step not in self.needs:
            raise InputError(f"the pipeline {self.pipeline.name} has no step '{step}'.{nearest(step, self.needs)}")

    def due(self, name: str, until: float | None, again: bool = False) -> Due | None:
        """Why a step is to be done now; None where nothing has changed. `again`: it is asked for. Raises ConfigError
        for names and files that are not there."""
        step, record = self.loaded[name], self.folder.record(name)
        needed = {need: found for need in self.needs[name] if (found := self.folder.record(need)) is not None}
        made = {need: found.made for need, found in needed.items()}
        inputs = inputs_of(step, self.needs[name], made, self.contents, until)
        inputs |= named_elsewhere(step, self.makers)
        if again:
            return Due("it is asked for", inputs)
        if record is None:
            return Due("it was not done yet", inputs)
        if not record.inputs:  # it failed before it was begun
            return Due(_before(record), inputs)
        if changed := changes(record.inputs, inputs):
            return Due(changed, inputs)
        if record.state in REDONE:
            return Due(_before(record), inputs, goes_on=True)
        why = why_gone(step, record)
        return None if why is None else Due(why, inputs)

    def outlook(self, until: float | None, again: set[str], only: str | None = None) -> dict[str, str]:
        """What would be done, and why, without doing it; an empty text where nothing would."""
        found: dict[str, str] = {}
        for name in self.needs if only is None else (only,):
            before = [need for need in self.needs[name] if found.get(need) and not self._follows(need)]
            if before and name not in again and not self._follows(name):
                same = "" if self.folder.record(name) is None else ", unless that comes to the same"
                which = "which is" if len(before) == 1 else "which are"
                found[name] = f"it needs {' and '.join(before)}, {which} done before{same}"
            else:
                due = self.due(name, until, name in again)
                found[name] = "" if due is None else due.why
        return found

    def _follows(self, name: str) -> bool:
        """Whether a step looks at what a name means, whatever that is: it makes nothing that others depend on."""
        return isinstance(self.loaded[name].step, ServeStep | MonitorStep)


def why_gone(loaded: Loaded, record: Record) -> str | None:
    """Why the result of a step does not count any more, though nothing has changed; None where it does."""
    step = loaded.step
    if isinstance(step, MonitorStep):
        return "the traffic is looked at each time"
    if isinstance(step, ServeStep):
        return None if endpoint.answers(step) else f"nothing answers at {step.url}"
    run = record.places.get("run")
    if run and not is_url(run) and not (Path(run) / RESOLVED).is_file():
        return f"its run {run} is gone"
    if record.made.partition("@")[2] and loaded.made is not None and not _is_kept(record):
        return f"{record.made} is gone"
    return None


def _is_kept(record: Record) -> bool:
    """Whether the registry still has the version that a step has made."""
    from ftlib.registry import data_versions, registry

    try:
        if record.made.startswith(DATA):
            return data_versions.resolve(record.made).hash == record.places.get("hash")
        registry.resolve(record.made.removeprefix(REGISTRY))
    except InputError:
        return False
    return True


def _before(record: Record) -> str:
    if record.state == "failed":
        return f"it failed: {record.why}"
    return "it was interrupted"
