"""The experiment as a YAML file, with the fate of each key of the source in a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from ftlib.convert.conversion import SECTIONS, Conversion, Fate

WIDTH = 118  # characters of a line
SHOWN = 60  # characters of a value of the source
TITLES = {
    "refused": "Refused: ftlib does not do this, so the experiment above lacks it.",
    "harmless": "Left out: nothing that is learned hangs on these.",
    "mapped": "Converted, with a difference or a reason. Of every other key, the line above says where it went.",
}


def text(conversion: Conversion, source: str, head: str = "") -> str:
    """The whole file. `source` is the name of the configuration, `head` a first line."""
    lines = [head] if head else []
    lines += list(_comment(f"Written by 'ftlib convert' from {plain(source)}, a configuration of {conversion.tool}."))
    lines += list(_comment(_batch(conversion)))
    order = [*SECTIONS, *(key for key in conversion.tree if key not in SECTIONS)]
    for key in (key for key in order if key in conversion.tree):
        lines += _entry(conversion, key, conversion.tree[key], key, 0)
    for kind in ("refused", "harmless", "mapped"):
        fates = [fate for fate in conversion.fates if fate.kind == kind and _needs_words(fate)]
        lines += ["", f"# {TITLES[kind]}"] if fates else []
        lines += [line for fate in fates for line in _comment(f"{_told(fate)}", "  ")]
    return "\n".join(lines) + "\n"


def plain(value: Any) -> str:
    """A text from elsewhere as one line of a comment: printable, and short."""
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in str(value)).split())
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def _told(fate: Fate) -> str:
    value = "" if fate.value is None else f" {plain(_shown(fate.value))}"
    return f"{plain(fate.key)}:{value} -> {' '.join(fate.text.split())}{' (look at this)' if fate.look else ''}"


def _needs_words(fate: Fate) -> bool:
    return fate.kind != "mapped" or ": " in fate.text


def _batch(conversion: Conversion) -> str:
    rows = [conversion.at(f"train.{key}") for key in ("per_device_train_batch_size", "gradient_accumulation_steps")]
    size, batches = (row if isinstance(row, int) else 1 for row in rows)
    workers = conversion.at("scale.num_workers") or 1
    return f"One step trains {size} rows x {batches} batches x {workers} workers = {size * batches * workers} rows."


def _entry(conversion: Conversion, key: str, value: Any, path: str, depth: int) -> list[str]:
    said = _said(conversion, path, depth)
    indent = "  " * depth
    if isinstance(value, dict) and depth == 0 and value:
        inner = [line for k, v in value.items() for line in _entry(conversion, k, v, f"{path}.{k}", 1)]
        return [f"{indent}{key}:", *inner]
    if path == "data.train" and isinstance(value, list):
        return [f"{indent}{key}:{f'  # {said}' if said else ''}", *(f"{indent}  - {_flow(one)}" for one in value)]
    line = f"{indent}{key}: {_flow(value)}"
    return [f"{line}  # {said}"] if said else [line]


def _said(conversion: Conversion, path: str, depth: int) -> str:
    """Where a value comes from, and what is in it."""
    here = [because for place, because in conversion.comments.items()
            if place == path or (depth and place.startswith(f"{path}."))]  # fmt: skip
    return ", ".join(dict.fromkeys(plain(one) for because in here for one in because))


def _shown(value: Any) -> str:
    """A value of the source as YAML; as Python prints it where it is no plain data."""
    try:
        return _flow(value)
    except yaml.YAMLError:
        return str(value)


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    dumped: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return dumped.removesuffix("...\n").strip()


def _comment(sentence: str, indent: str = "") -> Iterator[str]:
    for line in textwrap.wrap(sentence, WIDTH - len(indent) - 2, subsequent_indent="    ", break_on_hyphens=False):
        yield f"# {indent}{line}"
