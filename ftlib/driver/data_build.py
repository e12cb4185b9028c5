"""`ftlib data build`: a recipe done, and what it came to made a version of the registry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.driver.listener import SILENT, Listener

if TYPE_CHECKING:
    from ftlib.config.recipe import Recipe
    from ftlib.curate.runner import Build, Tick
    from ftlib.curate.workers import Workers
    from ftlib.registry.data_versions import DataVersion

TEACHERS = ("teacher", "judge", "rejected")  # keys of steps that name a model
REGISTRY = "registry:"
SMALL = 64 * 2**20  # bytes of sources that one process has done before Ray's workers would be there


@dataclass(frozen=True)
class Built:
    """What a build came to: the version, whether it is a new one, and the folder with the rows that were dropped."""

    version: DataVersion
    is_new: bool
    notes: Path


def build_data(
    file: str, overrides: Iterable[str] = (), workers: int | None = None, listener: Listener = SILENT
) -> Built:
    """Does the recipe in a file. `workers`: how many processes work at once; None is one a core, and this process alone
    where the sources are small. Raises InputError for a recipe or sources that cannot be used."""
    from ftlib.config.recipe import Recipe
    from ftlib.curate.result import write_notes
    from ftlib.curate.runner import build
    from ftlib.curate.sources import all_parts
    from ftlib.files.atomic import replace_directory, staging_beside
    from ftlib.registry import data_versions

    recipe = Recipe.load(file, overrides)
    data_versions.check_name(recipe.name)
    before = _newest(recipe.name)
    with listener.busy("looking at the sources"):
        parts = all_parts(with_files(recipe))
    by = _workers(sum(part.size for part in parts), workers)
    built = build(with_folders(recipe), parts, by, _Progress(listener))
    for sentence in unanswered(built.counts):
        listener.warn(sentence)
    version = _registered(recipe, built)
    notes = notes_of(recipe.name)
    staged = staging_beside(notes)
    staged.mkdir(parents=True)  # a recipe that drops and changes nothing writes no file
    write_notes(built, staged)
    replace_directory(staged, notes)
    return Built(version, before is None or version.number > before, notes)


def expected(
    file: str, overrides: Iterable[str] = (), workers: int | None = None, listener: Listener = SILENT
) -> list[str]:
    """What a recipe would ask of its teachers, a sentence each. The steps before the first one that asks are done, and
    kept for the build; nobody is asked. Raises as `build_data`."""
    from ftlib.config.recipe import Recipe
    from ftlib.curate.passes import sign_key
    from ftlib.curate.runner import before_asking
    from ftlib.curate.sources import all_parts
    from ftlib.curate.teachers.estimate import sentences

    recipe = with_folders(Recipe.load(file, overrides))
    with listener.busy("looking at the sources"):
        parts = all_parts(with_files(recipe))
    by = _workers(sum(part.size for part in parts), workers)
    built, asking = before_asking(recipe, parts, by, _Progress(listener))
    if not asking:
        return ["no step of the recipe asks a model: building it costs nothing."]
    first, *others = asking
    signs = [built.store.get(sign_key(block.key)) for block in built.blocks]
    told = sentences(first.key, first.settings.teachers, signs)
    return [*told, *(f"{step.key}: is known once {first.key} is done: build, and look again." for step in others)]


def with_folders(recipe: Recipe) -> Recipe:
    """The recipe with a folder in the place of each teacher registry:NAME. Raises InputError for a name that is not
    there, and for an adapter that no base can absorb."""
    tree = recipe.to_dict()
    return type(recipe).parse(found) if (found := _replaced(tree)) != tree else recipe


def _replaced(value: Any) -> Any:
    if isinstance(value, list):
        return [_replaced(one) for one in value]
    if isinstance(value, dict):
        return {key: _replaced(one) if key not in TEACHERS else _with_folder(one) for key, one in value.items()}
    return value


def _with_folder(teacher: Any) -> Any:
    name = teacher.get("model") if isinstance(teacher, dict) else teacher
    if not isinstance(name, str) or not name.startswith(REGISTRY):
        return teacher
    from ftlib.registry import registry  # with torch
    from ftlib.registry.bases import merged

    version = registry.resolve(name.removeprefix(REGISTRY))
    folder = str(version.weights if version.kind == "model" else merged(version))
    return {**teacher, "model": folder} if isinstance(teacher, dict) else folder


def unanswered(counts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A sentence on each step whose teacher has not answered all that it was to be asked."""
    for key, told in counts.items():
        over, silent = (told["dropped"].get(reason, 0) for reason in ("budget", "no_answer"))
        if over:
            yield (
                f"steps: {key}: its budget has ended: {over:,} rows are left out. A larger budget goes on there: the "
                "answers so far are kept."
            )
        if silent:
            yield f"steps: {key}: {silent:,} rows have no answer: ftlib data show NAME --dropped {key} says why."


def with_files(recipe: Recipe) -> Recipe:
    """The recipe with a file in the place of each source data:NAME. Raises ConfigError for a name that is not there."""
    from ftlib.registry.data_named import file_of

    tree = recipe.to_dict()
    for number, source in enumerate(tree["from"]):
        if "jsonl" in source:
            source["jsonl"] = file_of(f"from.{number}.jsonl", source["jsonl"], "train")
    return type(recipe).parse(tree)


def notes_of(name: str) -> Path:
    """Where the newest build of a name keeps the rows that were dropped."""
    from ftlib.files.home import home

    return home() / "data" / "builds" / name


def _registered(recipe: Recipe, built: Build) -> DataVersion:
    from ftlib.curate.result import sources_of, write_rows
    from ftlib.registry import data_versions
    from ftlib.registry.data_card import data_card

    def fill(folder: Path) -> Mapping[str, Any]:
        return {
            "data": write_rows(built, folder),
            "recipe": recipe.to_dict(),
            "sources": sources_of(built),
            "counts": built.counts,
        }

    return data_versions.register(recipe.name, fill, data_card)


def _newest(name: str) -> int | None:
    from ftlib.errors import InputError
    from ftlib.registry import data_versions

    try:
        return data_versions.current(name).number
    except InputError:
        return None


def _workers(size: int, count: int | None) -> Workers:
    """This process for one worker and for little work, where no cluster is named; else Ray."""
    from ftlib.curate.workers import Here

    if count == 1 or (count is None and not os.environ.get("RAY_ADDRESS") and size < SMALL):
        return Here()
    from ftlib.curate.on_ray import OnRay

    return OnRay(count)


class _Progress:
    """A build's progress for a listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    @contextmanager
    def counted(self, what: str, total: int) -> Iterator[Tick]:
        with self._listener.count(what, total) as tick:
            yield tick
