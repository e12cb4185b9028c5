"""docs/keys.md: every key of an experiment file, with its type, its default and what it is for."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from ftlib.config.experiment import Experiment
from ftlib.config.messages import models_in
from ftlib.config.schema import descriptions, json_schema
from ftlib.config.train import STRATEGY_KEYS, ScaleSection
from ftlib.config.words import type_in_words, value_in_words

Models = list[type[BaseModel]]

INTRO = """\
# Every key of an experiment file

Written by `ftlib schema --markdown`, from the sections in `ftlib/config/`. A meaning is the text under its key there.

- A key is printed with its whole path. `train.learning_rate` is the key `learning_rate` in the section `train`. On the
  command line it is `ftlib sweep FILE train.learning_rate=1e-4`.
- `required` is a key that has no default.
- `{}` is an empty mapping. In the place of a section it means that each key of the section has its own default.
- A key whose section stands in a list is a key of each member of that list: `data.train.path`.
- `off` and `none` are `null` too, where a key can be `null` and takes no text and no true or false.
- `ftlib check FILE --all` prints a file with all defaults filled in. [compatibility.md](compatibility.md) says which
  choices go together.
"""


def markdown() -> str:
    """The text of docs/keys.md."""
    return "\n".join([INTRO, *_table(_rows(Experiment, "")), *_subsections(Experiment, "", depth=2)]) + "\n"


def _subsections(section: type[BaseModel], prefix: str, depth: int) -> Iterator[str]:
    """The parts of the page for those keys of a section that have a heading of their own."""
    for name in section.model_fields:
        if _stands_alone(section, name, prefix):
            yield from _part(f"{prefix}{name}", _meaning(section, name), _models(section, name), depth)
        else:
            for model in _models(section, name):
                yield from _subsections(model, f"{prefix}{name}.", depth)


def _part(path: str, meaning: str, models: Models, depth: int) -> Iterator[str]:
    yield from ("", f"{'#' * depth} {path}", "", *_wrapped(meaning))
    if _have_types(models):
        yield from _by_type(path, models, depth + 1)
    elif len(models) > 1:
        yield from _by_shape(path, models)
    else:
        yield from ("", *_table(_rows(models[0], f"{path}.")))
        yield from _subsections(models[0], f"{path}.", depth + 1)


def _by_type(path: str, models: Models, depth: int) -> Iterator[str]:
    """What all types have, once; then a table for each type."""
    common = _common_keys(models)
    types = ", ".join(f"`{_type_of(model)}`" for model in models)
    choice = _row(f"{path}.type", f"one of {types}", "required", "Which one. Each type has its own keys below.")
    yield from ("", *_table([choice, *_rows(models[0], f"{path}.", only=common)]))
    for model in models:
        own = [name for name in model.model_fields if name not in ("type", *common)]
        yield from ("", f"{'#' * depth} {path}.type: {_type_of(model)}", "", *_wrapped(_meaning(model, "type")), "")
        yield from _table(_rows(model, f"{path}.", only=own)) if own else ["It has no keys of its own."]


def _by_shape(path: str, models: Models) -> Iterator[str]:
    """The shapes that a value of a mapping may have."""
    yield from ("", "Each value has one of the shapes below. `KEY` stands for its key.")
    for model in models:
        yield from ("", *_wrapped(str(inspect.getdoc(model))), "", *_table(_rows(model, f"{path}.KEY.")))


def _common_keys(models: Models) -> list[str]:
    """The keys that are the same in every model, except `type`."""
    first = models[0].model_fields.keys() - {"type"}
    alike = {name for name in first if len({_cells(model, name) for model in models}) == 1}
    return [name for name in models[0].model_fields if name in alike]


def _table(rows: Iterable[str]) -> list[str]:
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows]


def _rows(section: type[BaseModel], prefix: str, only: Iterable[str] | None = None) -> Iterator[str]:
    """A row for each key, and below it the keys of the section that it holds, unless that has its own heading."""
    for name in section.model_fields if only is None else only:
        kind, default, meaning = _cells(section, name)
        alone = _stands_alone(section, name, prefix)
        yield _row(f"{prefix}{name}", _linked(kind, f"{prefix}{name}") if alone else kind, default, meaning)
        if not alone:
            for model in _models(section, name):
                yield from _rows(model, f"{prefix}{name}.")


def _row(path: str, *cells: str) -> str:
    return "| " + " | ".join([f"`{path}`", *(_plain(cell) for cell in cells)]) + " |"


def _plain(text: str) -> str:
    """Text that Markdown prints as it stands, with links to the other pages."""
    return re.sub(r"docs/(\w+\.md)", r"[\1](\1)", text.replace("|", r"\|").replace("<", "&lt;"))


def _cells(section: type[BaseModel], name: str) -> tuple[str, str, str]:
    """Type, default and meaning of a key; that it is not there, where the section has no such key."""
    if name not in section.model_fields:
        return "", "", ""
    return type_in_words(_node(section, name)), _default(section, name), _meaning(section, name)


def _meaning(section: type[BaseModel], name: str) -> str:
    return descriptions(section).get(name, "")


def _default(section: type[BaseModel], name: str) -> str:
    field = section.model_fields[name]
    if field.is_required():
        return "required"
    default = f"`{value_in_words(field.get_default(call_default_factory=True))}`"
    owners = STRATEGY_KEYS.items() if section is ScaleSection else ()
    own = [(owner, keys[name]) for owner, keys in owners if keys.get(name) is not None]
    return "; ".join([default, *(f"`{value_in_words(value)}` with {owner}" for owner, value in own)])


def _node(section: type[BaseModel], name: str) -> dict[str, Any]:
    tree = _schema()
    place = tree if section is Experiment else tree["$defs"][section.__name__]
    node: dict[str, Any] = place["properties"][name]
    return node


@cache
def _schema() -> dict[str, Any]:
    return json_schema()


def _models(section: type[BaseModel], name: str) -> Models:
    """The sections that the value of a key may be."""
    return list(dict.fromkeys(models_in(section.model_fields[name].annotation)))


def _stands_alone(section: type[BaseModel], name: str, prefix: str) -> bool:
    """Whether the keys below a key have a heading of their own: the sections of the file, and what has several
    shapes."""
    return len(_models(section, name)) > (0 if not prefix else 1)


def _have_types(models: Models) -> bool:
    return len(models) > 1 and all("type" in model.model_fields for model in models)


def _type_of(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _linked(kind: str, path: str) -> str:
    """The type with a link to the part of the page that has its keys."""
    return kind.replace("mapping", f"[mapping](#{path.replace('.', '').lower()})", 1)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(_plain(text), 120, break_long_words=False, break_on_hyphens=False)
