"""A function of the user's by its import path: `package.module:name` or `path/to/file.py:name`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ftlib.errors import ConfigError, nearest


def load_function(path: str, where: str) -> Callable[..., Any]:
    """The function. `where` is the key that names it, for messages. Raises ConfigError."""
    source, _, name = path.rpartition(":")
    file = Path(source).expanduser() if source.endswith(".py") else None
    if file is not None and not file.is_file():
        raise ConfigError(f"{where}: there is no file {source}.")
    try:
        module = _module_of(file) if file is not None else importlib.import_module(source)
    except Exception as error:  # a user's module fails in its own way
        raise ConfigError(f"{where}: {source} cannot be imported: {type(error).__name__}: {error}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{where}: {source} has no function '{name}'.{nearest(name, dir(module))}")
    return function  # type: ignore[no-any-return]


def _module_of(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None  # of any .py file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
