"""All that a step depends on, as texts by names: what has changed is said by comparing two of them.

train.max_steps           40                       a setting, as its author wrote it
file data/tickets.csv     3f9a...                  the hash of a file or folder that the step names
data:tickets              data:tickets@2           a name of the registry that no step of the pipeline makes
step sft                  manual-sft@1             what a step that it needs has made
log support               requests until ...       the sampled requests that are rows of its recipe
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ftlib.config import Experiment
from ftlib.config.pipeline import EvaluateStep, MonitorStep, PromoteStep, ServeStep
from ftlib.config.recipe import Recipe
from ftlib.errors import ConfigError, InputError
from ftlib.files.contents import Contents
from ftlib.files.urls import is_url
from ftlib.pipelines.names import DATA, REGISTRY, Loaded
from ftlib.run.pipelines import Inputs

FILE, STEP, LOG = "file ", "step ", "log "
SHOWN = 3  # reasons that a sentence has


def inputs_of(
    loaded: Loaded, needs: Sequence[str], made: Mapping[str, str], contents: Contents, until: float | None
) -> Inputs:
    """What a step depends on now. `made` is what the steps that it needs have made. Raises ConfigError for a name that
    the registry does not have, and for files that are not there."""
    step = loaded.step
    found = dict(_settings(loaded.written))
    if isinstance(step, ServeStep | MonitorStep):  # they follow what a name means
        return found
    found |= {f"{STEP}{need}": made[need] for need in needs if made.get(need)}
    for path in _files(loaded):
        found[f"{FILE}{path}"] = contents.of(path)
    for name in _logs(loaded):
        when = datetime.fromtimestamp(until or 0, UTC).isoformat(timespec="milliseconds")
        found[f"{LOG}{name}"] = f"requests until {when}"
    return found


def named_elsewhere(loaded: Loaded, by_steps: Mapping[str, str]) -> Inputs:
    """The versions of names that no step of the pipeline makes. Raises ConfigError for one that is not there."""
    if isinstance(loaded.step, ServeStep | MonitorStep):
        return {}
    try:
        return {name: _version(name) for name in loaded.named if name not in by_steps}
    except InputError as error:
        raise ConfigError(f"steps.{loaded.name}: {error}") from None


def changes(before: Inputs, now: Inputs) -> str:
    """What differs, in a sentence; an empty text where nothing does."""
    names = [
        name for name in (*now, *(name for name in before if name not in now)) if before.get(name) != now.get(name)
    ]
    told = [_change(name, before.get(name), now.get(name)) for name in names[:SHOWN]]
    more = len(names) - SHOWN
    return "; ".join([*told, *([f"and {more} more"] if more > 0 else [])])


def _change(name: str, before: str | None, now: str | None) -> str:
    kind, _, rest = name.partition(" ")
    if f"{kind} " == FILE:
        return f"{rest} {'is new' if before is None else 'is not named now' if now is None else 'has changed'}"
    if now is None:
        return f"{name} is left out"
    if f"{kind} " in (STEP, LOG) or name.startswith((DATA, REGISTRY)):
        return f"{now} instead of {before}" if before else now
    return f"{name} is {now}" + (f" instead of {before}" if before is not None else "")


def _settings(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each setting by its dotted path; members of lists by their numbers."""
    within = dict(enumerate(tree)) if isinstance(tree, list) else tree
    if isinstance(within, dict) and (within or not path):
        for key, value in within.items():
            yield from _settings(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(tree, default=str)


def _version(name: str) -> str:
    from ftlib.registry import data_versions, registry

    if name.startswith(DATA):
        return f"{DATA}{data_versions.resolve(name).id}"
    return f"{REGISTRY}{registry.resolve(name.removeprefix(REGISTRY)).id}"


def _logs(loaded: Loaded) -> list[str]:
    sources = loaded.file.sources if isinstance(loaded.file, Recipe) else []
    return [source.place for source in sources if source.kind == "log"]


def _files(loaded: Loaded) -> Iterator[Path]:
    """The files and folders that a step names, where they are here: a name on the Hub, or a URL, stands for itself."""
    step = loaded.step
    if isinstance(loaded.file, Recipe):
        yield from _of_recipe(loaded.file)
    elif isinstance(loaded.file, Experiment):
        yield from _of_experiment(loaded.file)
    elif isinstance(step, EvaluateStep):
        yield from _there([*step.evaluate, step.task.data])
    elif isinstance(step, PromoteStep) and step.unless_worse_than:
        yield from _there([step.unless_worse_than])


def _of_experiment(experiment: Experiment) -> Iterator[Path]:
    named: list[str] = []
    experiment.with_paths(lambda key, value: named.append(value) or value)  # type: ignore[func-returns-value]
    yield from _there([name if Path(name).exists() else name.partition(":")[0] for name in dict.fromkeys(named)])


def _of_recipe(recipe: Recipe) -> Iterator[Path]:
    from ftlib.curate.sources import files_of
    from ftlib.curate.steps import step_of

    for number, source in enumerate(recipe.sources):
        if source.kind not in ("hub", "log") and not is_url(source.place) and not source.place.startswith(DATA):
            yield from (path for _, path in files_of(f"from.{number}.{source.kind}", source))
    for _, section in recipe.keyed_steps:
        yield from _there(step_of(section.name, section.settings).files(section.settings))


def _there(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name).expanduser()
        if not is_url(name) and not name.startswith((DATA, REGISTRY)) and path.exists():
            yield path
