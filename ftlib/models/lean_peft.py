"""PEFT without bitsandbytes at its import, which takes a fifth of a host's start.

PEFT imports bitsandbytes wherever it is installed, and that torch's compiler, over a second on a CPU. PEFT asks again
where it meets a quantized layer, and by then bitsandbytes may come.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LATER = "bitsandbytes"


class _Finder(importlib.abc.MetaPathFinder):
    """Meets the first import of PEFT, and no other."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "peft":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """The module's own loader, while bitsandbytes is out of sight."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        with _out_of_sight():
            self._own.exec_module(module)
        for asked in ("is_bnb_available", "is_bnb_4bit_available"):
            getattr(module.import_utils, asked).cache_clear()


@contextmanager
def _out_of_sight() -> Iterator[None]:
    if LATER in sys.modules:
        yield
        return
    sys.modules[LATER] = None  # type: ignore[assignment]  # Python's own way to say that there is none
    try:
        yield
    finally:
        del sys.modules[LATER]


def install() -> None:
    """Puts the finder in place. It does nothing where PEFT is imported already."""
    if "peft" not in sys.modules:
        sys.meta_path.insert(0, _Finder())
