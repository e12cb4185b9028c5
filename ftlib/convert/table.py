"""A tool's table, and the walk over a configuration by it: each key is looked up once and gets its fate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ftlib.config.foreign import Answer, answers
from ftlib.convert.conversion import Conversion, Function
from ftlib.errors import nearest

OFF = (False, 0, 0.0, "no", "none", "off", "")
OTHER_SHAPE = (TypeError, ValueError, AttributeError, LookupError, OverflowError)
ALIKE = 0.75  # how near the nearest known name is at least


@dataclass(frozen=True)
class Table:
    """What a tool's keys become.

    `plain`: key -> path here, the value as it is. `functions`: key -> what reads it, alone or with others. `harmless`
    and `refused`: reason -> keys, before what `ftlib.config.foreign` says of them. `also`: keys of the tool that other
    tools share, of which `foreign` knows the answer. `one_is_off`: keys of which 1 asks for nothing. `finish` is called
    last, for what the tool does where its file says nothing.
    """

    tool: str
    plain: Mapping[str, str]
    functions: Mapping[str, Function]
    finish: Callable[[Conversion], None]
    foreign: tuple[Mapping[str, Answer], ...] = ()
    harmless: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    also: str = ""
    one_is_off: str = ""

    @cached_property
    def answers(self) -> dict[str, Answer]:
        """Every key that is not converted, with its answer."""
        shared = {key: answers()[key] for key in self.also.split()}
        told = [shared, *self.foreign, _told("harmless", self.harmless), _told("refused", self.refused)]
        return {key: found for table in told for key, found in table.items()}

    @property
    def known(self) -> set[str]:
        """Every key that the table has an answer to."""
        return {*self.plain, *self.functions, *self.answers}


def walk(conversion: Conversion, table: Table) -> None:
    """Gives every key of the source its fate, and then fills in what the tool does of itself."""
    for key, value in conversion.source.items():
        try:
            _key(conversion, table, str(key), value)
        except OTHER_SHAPE:  # what comes from elsewhere may be of any shape, and the table reads those of its tool
            conversion.refuse(str(key), f"{table.tool} does not read a value of this shape, here or in a key beside it")
    table.finish(conversion)


def _key(conversion: Conversion, table: Table, key: str, value: Any) -> None:
    if key not in table.known:
        return conversion.refuse(key, f"{table.tool} has no such key{_near(key, table.known)}")
    if value is None or value == "" or value == [] or value == {}:
        return conversion.harmless(key, "it is empty")
    if key in table.functions:
        return table.functions[key](conversion, key, value)
    if key in table.plain:
        return conversion.map(key, {table.plain[key]: value})
    found = table.answers[key]
    if found.kind == "harmless":
        return conversion.harmless(key, found.text)
    if value in OFF or (value == 1 and key in table.one_is_off.split()):
        return conversion.harmless(key, "it is off")
    if found.kind == "absent":
        return conversion.harmless(key, f"it changes nothing that is learned, and ftlib does not have it: {found.text}")
    if found.kind == "ours":
        return conversion.refuse(key, f"set {found.text} in the experiment yourself")
    return conversion.refuse(key, found.text)


def _near(key: str, known: set[str]) -> str:
    return (nearest(key, known, ALIKE) or ": leave it out").replace(" Did", ". Did")


def _told(kind: Any, reasons: Mapping[str, str]) -> dict[str, Answer]:
    return {key: Answer(kind, reason) for reason, keys in reasons.items() for key in keys.split()}


def choose(values: Mapping[Any, Any], path: str, otherwise: str) -> Function:
    """A function that translates a value by a list; a value that is not on it is refused for the reason
    `otherwise`."""

    def function(conversion: Conversion, key: str, value: Any) -> None:
        if isinstance(value, str | int | float | bool) and value in values:
            return conversion.map(key, {path: values[value]})
        return conversion.refuse(key, f"{value!r} is not there: {otherwise}")

    return function
