"""Files that a configuration names: found beside it or where the command runs, and read with bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlib.errors import ConfigError


def find(folder: Path, name: str) -> Path | None:
    """The file of this name beside the configuration, or where the command runs; None where there is none."""
    return next((place for place in (folder / name, Path(name)) if _is_file(place)), None)


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def read_json(place: Path, most: int) -> dict[str, Any]:
    """The mapping in a JSON file. Raises ConfigError for one of more than `most` bytes, and for anything else."""
    if place.stat().st_size > most:
        raise ConfigError(f"{place}: larger than {most:,} bytes; such a file is a page.")
    try:
        read = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: no readable JSON: {error}.") from None
    if not isinstance(read, Mapping):
        raise ConfigError(f"{place}: it must be a mapping, but is a {type(read).__name__}.")
    return dict(read)
