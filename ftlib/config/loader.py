"""Reads YAML the way a person expects: no duplicate keys, no anchor bombs, `1e-4` is a number, errors name the line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ftlib.errors import ConfigError

MAX_BYTES = 1_000_000
MERGE = "tag:yaml.org,2002:merge"
SPACE = "sweep.space."
DIMENSION_KEYS = ("min", "max", "log", "q", "choices", "ratio_of")
MAX_NODES = 20_000  # after aliases are expanded: far above any experiment, far below a "billion laughs"


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and reads `1e-4` as a float (YAML 1.1 reads a string)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """What is merged in (`<<: *defaults`) gives way to the mapping's own keys; those stand once."""
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        merges = key_node.tag == MERGE
        key = "<<" if merges else loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str | int | float | bool):
            raise ConfigError(f"line {line}: a key must be a plain word, but it is {key!r}.")
        if key in seen:
            also = ": merge a list, <<: [*a, *b]" if merges else ": keep one"
            raise ConfigError(f"line {line}: the key '{key}' stands twice (first on line {seen[key]}){also}.")
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def parse_yaml(text: str) -> Any:
    """The value of one YAML document. Raises ConfigError with the line for anything that is not plain data."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _expanded_size(node, {}) > MAX_NODES:
            raise ConfigError(f"its anchors and aliases expand to more than {MAX_NODES:,} values: write them out.")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{where}not valid YAML: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"not valid YAML: {str(error).splitlines()[0]}.") from error
    finally:
        loader.dispose()


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes `node` stands for when every alias is written out (counted once, so a bomb costs nothing)."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_NODES + 1  # an alias to itself counts as too large
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    known[id(node)] = 1 + sum(_expanded_size(child, known) for child in children)
    return known[id(node)]


def read_mapping(path: str | Path, what: str = "an experiment") -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError naming the file when it is missing, too large or no mapping."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file.")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes; {what} is a page, not a data set.")
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        kind = "empty" if value is None else f"a {type(value).__name__}"
        raise ConfigError(f"{path}: {what} is a mapping of sections, but this is {kind}.")
    return value


def parse_override(text: str) -> tuple[str, Any]:
    """`train.learning_rate=1e-4` as (dotted path, value); the value is read as YAML."""
    path, sign, value = text.partition("=")
    if not sign or not path.strip():
        raise ConfigError(f"'{text}' is no override: write section.key=value, for example train.learning_rate=1e-4.")
    return path.strip(), parse_yaml(value)


def _parts(path: str) -> list[str]:
    if not path.startswith(SPACE):
        return path.split(".")
    key, _, last = path.removeprefix(SPACE).rpartition(".")
    within = [key, last] if key and last in DIMENSION_KEYS else [path.removeprefix(SPACE)]
    return ["sweep", "space", *within]


def set_dotted(tree: dict[str, Any], path: str, value: Any) -> None:
    """Sets `tree[a][b][c]` for the path `a.b.c`, making the mappings on the way; a number names a member of a list that
    is there: steps.0.dedupe.near. A sweep's space has whole paths as its keys, so `sweep.space.train.learning_rate` is
    the key `train.learning_rate` there."""
    *parents, last = _parts(path)
    inner: Any = tree
    for depth, part in enumerate(parents):
        within = ".".join(parents[: depth + 1])
        below = inner[_place(inner, part, path)] if isinstance(inner, list) else inner.get(part)
        if below is None:
            below = inner[part] = {}
        if not isinstance(below, dict | list):
            raise ConfigError(f"{path}: '{within}' is {below!r}, not a section.")
        inner = below
    inner[_place(inner, last, path) if isinstance(inner, list) else last] = value


def _place(members: list[Any], part: str, path: str) -> int:
    if not part.isdecimal() or int(part) >= len(members):
        raise ConfigError(f"{path}: '{part}' is no member of this list, which has {len(members)}: they count from 0.")
    return int(part)
