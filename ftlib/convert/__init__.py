"""Configurations of other tools, as experiments: `ftlib convert`.

A configuration comes from elsewhere: it is read with bounds, parsed and never run. Every one of its keys is mapped,
harmless or refused, and nothing goes without a word. The tables are one file a tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftlib.convert import axolotl, llama_factory, llama_factory_v1, recognize, scale, source, torchtune, trl, unsloth
from ftlib.convert.conversion import Asked, Conversion, Fate
from ftlib.convert.table import Table, walk
from ftlib.errors import ConfigError, InputError

__all__ = ["TOOLS", "Asked", "Conversion", "Fate", "convert"]

TABLES: dict[str, Callable[[Mapping[str, Any]], Table]] = {
    "axolotl": lambda found: axolotl.TABLE,
    "llama_factory": lambda found: llama_factory_v1.TABLE if llama_factory_v1.is_v1(found) else llama_factory.TABLE,
    "trl": lambda found: trl.TABLE,
    "torchtune": lambda found: torchtune.TABLE,
    "unsloth": lambda found: unsloth.TABLE,
}
TOOLS = tuple(TABLES)


def convert(path: Path, tool: str | None = None, asked: Asked | None = None) -> Conversion:
    """The configuration in a file as an experiment, each key with its fate; not yet written anywhere.

    `tool` is one of TOOLS; None recognizes it. Raises ConfigError where the file cannot be read, and InputError where
    it trains nothing, or no tool is recognized.
    """
    found = read(path)
    name = tool or ("unsloth" if path.suffix in source.CODE else recognize.recognize(found))
    if why := recognize.why_no_training(found):
        raise InputError(f"{path}: this file trains nothing: {why}.")
    if name is None:
        keys = ", ".join(str(key)[:40] for key in list(found)[:5])
        raise InputError(f"{path}: its keys ({keys}) are of none of {', '.join(TOOLS)}: --from says which tool it is.")
    found = torchtune.resolved(found) if name == "torchtune" else found
    table = TABLES[name](found)
    conversion = Conversion(table.tool, found, path.parent, asked or Asked())
    conversion.put("name", _name(path), "the file's name")
    walk(conversion, table)
    if conversion.at("model.name_or_path") is None:
        raise InputError(f"{path}: this file trains nothing: it names no model.")
    scale.settle(conversion)
    scale.same_rows(conversion)
    scale.workers(conversion)
    _check(conversion)
    return conversion


def read(path: Path) -> dict[str, Any]:
    """The mapping in a configuration, or the calls in a script."""
    return unsloth.read(path) if path.suffix in source.CODE else source.read_yaml(path)


def _name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:64] or "experiment"


def _check(conversion: Conversion) -> None:
    """Whatever ftlib itself refuses of the experiment is refused here too, in its own words."""
    from ftlib.config import Experiment

    try:
        Experiment.parse(conversion.tree, "")
    except ConfigError as error:
        lacking = (
            " is missing." if conversion.refused else "\n"
        )  # what is refused leaves a gap, which is no second fault
        for sentence in (line for line in str(error).splitlines() if not line.endswith(lacking)):
            conversion.fates.append(Fate("the experiment", None, "refused", sentence.removeprefix(": ")))
