"""The libraries that read documents are an extra: one sentence where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from ftlib.errors import InputError


def needs(module: str) -> None:
    """Raises InputError where `module` is not installed."""
    if find_spec(module) is None:
        raise InputError(f"'{module}' is not installed. It reads documents: pip install 'ftlib[curate]'.")
