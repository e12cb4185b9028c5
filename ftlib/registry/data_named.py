"""`data:NAME[@NUMBER][/SIDE]` in an experiment: the file of a version in its place, and which version a file is of.

Without a side, a key takes its own: data.train the rows to train on, data.eval those to evaluate on, a task those of
the test.
"""

from __future__ import annotations

from pathlib import Path

from ftlib.config import Experiment
from ftlib.errors import ConfigError, FtlibError, InputError, nearest
from ftlib.registry.data_versions import DATA, SIDES, DataVersion, resolve, why_no_manifest
from ftlib.registry.stored import manifest_in
from ftlib.run.layout import MANIFEST


def resolved(experiment: Experiment) -> Experiment:
    """The experiment with a file in the place of each `data:NAME`. Where data.train names a version that has rows for
    evaluation, and the experiment says nothing of those, data.eval is these.

    Raises InputError for names that are not there, ConfigError for a side that the version does not have.
    """
    section = experiment.data
    silent = section.eval is None and not {"eval", "eval_split"} & section.model_fields_set
    found = experiment.with_paths(_file)
    with_eval = version_of(section.train) if silent and isinstance(section.train, str) else None
    if with_eval is not None and (file := with_eval.file("eval")) is not None:
        found = found.model_copy(update={"data": found.data.model_copy(update={"eval": str(file)})})
    return found


def version_of(name: str) -> DataVersion | None:
    """The version that a value names; None where it names no data of the registry."""
    return resolve(name.partition("/")[0]) if name.startswith(DATA) else None


def lineage(experiment: Experiment) -> dict[str, dict[str, str]]:
    """Of each key whose file is of a version: the version and its hash."""
    data = experiment.data
    named = {f"data.{key}": str(section.train) for key, _, section in data.sources}
    named |= {"data.eval": str(data.eval or ""), "data.replay.train": data.replay.train if data.replay else ""}
    ewc = getattr(experiment.method, "ewc", None)
    named |= {"method.ewc.data": ewc.data if ewc else ""}
    named |= {f"evaluation.{task.name}": task.data for task in experiment.evaluation.tasks}
    return {key: told for key, value in named.items() if (told := _beside(Path(value))) is not None}


def _file(key: str, value: str) -> str:
    own = "eval" if key == "data.eval" else "test" if key.startswith("evaluation.") else "train"
    return file_of(key, value, own)


def file_of(key: str, value: str, own: str) -> str:
    """The file that data:NAME[@NUMBER][/SIDE] names, of the side `own` without one; another value is itself. Raises
    ConfigError, with the key, for what is not there."""
    try:
        version = version_of(value)
    except InputError as error:
        raise ConfigError(f"{key}: {error}") from None
    if version is None:
        return value
    side = value.partition("/")[2] or own
    if side not in SIDES:
        raise ConfigError(f"{key}: '{value}': data has {', '.join(SIDES)}, not '{side}'.{nearest(side, SIDES)}")
    file = version.file(side)
    if file is None:
        there = ", ".join(name.removesuffix(".jsonl") for name in version.manifest["data"])
        raise ConfigError(f"{key}: {DATA}{version.id} has no rows for {side}: it has {there}.")
    return str(file)


def _beside(path: Path) -> dict[str, str] | None:
    if path.suffix != ".jsonl" or not (path.parent / MANIFEST).is_file():
        return None
    try:
        told = manifest_in(path.parent)
    except FtlibError:
        return None
    if why_no_manifest(told) is not None:
        return None
    return {"version": f"{DATA}{told.get('name')}@{told.get('version')}", "hash": str(told["hash"])}
