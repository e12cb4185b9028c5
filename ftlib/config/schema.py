"""The experiment file as a JSON Schema, for editors: every key with its type, its bounds and what it is for."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from ftlib.config.experiment import NOT_SWEPT, Experiment
from ftlib.config.messages import dotted_paths, models_in

DRAFT = "http://json-schema.org/draft-07/schema#"


def json_schema() -> dict[str, Any]:
    """The schema of one file. What it cannot say (which keys go together) `ftlib check` says."""
    tree = Experiment.model_json_schema()
    for section in sections(Experiment):
        place = tree if section is Experiment else tree["$defs"][section.__name__]
        for name, text in descriptions(section).items():
            place["properties"][name]["description"] = text
    space = tree["$defs"]["SweepSection"]["properties"]["space"]
    keys = (path for path in dotted_paths(Experiment) if path.split(".")[0] not in NOT_SWEPT and "." in path)
    space["properties"] = dict.fromkeys(keys, space["additionalProperties"])
    return {"$schema": DRAFT, "title": "An experiment of ftlib", **tree}


def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """What each key of a section is for: the text under it in the source, or its field's own description."""
    found = {name: field.description for name, field in section.model_fields.items() if field.description}
    for parent in reversed(section.__mro__):
        if issubclass(parent, BaseModel) and parent.__module__.startswith("ftlib."):
            found |= {name: text for name, text in _under_keys(parent).items() if name in section.model_fields}
    return found


def _under_keys(section: type[BaseModel]) -> dict[str, str]:
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    except (OSError, TypeError):  # a class that was made by a call has no source
        return {}
    assert isinstance(node, ast.ClassDef)
    pairs = zip(node.body, node.body[1:], strict=False)
    return {
        key.target.id: inspect.cleandoc(text.value.value).replace("\n", " ")
        for key, text in pairs
        if isinstance(key, ast.AnnAssign)
        and isinstance(key.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def sections(root: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The section itself and all that it is made of, each once."""
    seen: dict[type[BaseModel], None] = {}
    waiting = [root]
    while waiting:
        section = waiting.pop()
        if section not in seen:
            seen[section] = None
            waiting += [model for field in section.model_fields.values() for model in models_in(field.annotation)]
    yield from seen
