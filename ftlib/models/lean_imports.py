"""PEFT without bitsandbytes and transformers without SciPy at their imports: a third of a host's start.

PEFT imports bitsandbytes wherever it is installed, and that torch's compiler, over a second on a CPU. PEFT asks again
where it meets a quantized layer, and by then bitsandbytes may come. The losses of transformers import SciPy's
optimizers, another second, for one function of object detection. SciPy comes when that function is called.
"""

from __future__ import annotations

import gc
import importlib.abc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

LATER = "bitsandbytes"
OPTIMIZERS = "scipy.optimize"


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of `LEAN`, and no other. It may be asked more than once: transformers looks for PEFT before it
    imports it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in LEAN else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, LEAN[name])
        return spec


class _Loader(importlib.abc.Loader):
    """The module's own loader, while what the module need not import is out of sight."""

    def __init__(self, own: Any, lean: Callable[[ModuleType], AbstractContextManager[None]]) -> None:
        self._own, self._lean = own, lean

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        with self._lean(module):
            self._own.exec_module(module)


@contextmanager
def without_bitsandbytes() -> Iterator[None]:
    """Within, PEFT meets no bitsandbytes, unless it was imported before: it would import it for any model that it puts
    LoRA on, also for one that is not quantized."""
    import peft

    _asked_again(peft)
    try:
        with _without_bitsandbytes(peft):
            yield
    finally:
        _asked_again(peft)


@contextmanager
def _without_bitsandbytes(peft: ModuleType) -> Iterator[None]:
    with _in_place(LATER, None):  # Python's own way to say that there is none
        yield
    _asked_again(peft)


def _asked_again(peft: ModuleType) -> None:
    """PEFT keeps what it was answered."""
    for asked in ("is_bnb_available", "is_bnb_4bit_available"):
        getattr(peft.import_utils, asked).cache_clear()


@contextmanager
def _without_scipy(losses: ModuleType) -> Iterator[None]:
    stand_in = ModuleType(OPTIMIZERS)
    stand_in.linear_sum_assignment = _linear_sum_assignment  # type: ignore[attr-defined]
    with _in_place(OPTIMIZERS, stand_in):
        yield


def _linear_sum_assignment(*given: Any, **more: Any) -> Any:
    """SciPy's own function, which is imported now."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(*given, **more)


@contextmanager
def _in_place(name: str, module: ModuleType | None) -> Iterator[None]:
    """Within, an import of `name` gives `module`, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def uncollected() -> Iterator[None]:
    """Within, Python looks for no garbage: imports make hundreds of thousands of objects that stay, and to look through
    them again and again is a seventh of the time. Nor are they looked through later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


LEAN = {"peft": _without_bitsandbytes, "transformers.loss.loss_utils": _without_scipy}


def install() -> None:
    """Puts the finder in place. It does nothing for what is imported already."""
    sys.meta_path.insert(0, _Finder())
