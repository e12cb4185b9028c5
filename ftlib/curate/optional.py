"""The libraries that only this room needs: asked for by name, when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ftlib.errors import InputError


def needed(name: str) -> Any:
    """The module of this name. Raises InputError with what to install where it is not there."""
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"this needs the package {name.partition('.')[0]}: pip install 'ftlib[curate]'.") from None
