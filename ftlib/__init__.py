"""ftlib: one YAML file and one command turn a base model and data into the best fine-tune of it, served."""

from typing import TYPE_CHECKING, Any

from ftlib.models import lean_imports

if TYPE_CHECKING:
    from ftlib.api import (
        Endpoint,
        Run,
        Trial,
        build_data,
        export_winner,
        open_run,
        pipeline,
        resume,
        serve,
        sweep,
        train,
    )
    from ftlib.errors import FtlibError, InputError

__version__ = "0.1.0"

__all__ = [
    "Endpoint",
    "FtlibError",
    "InputError",
    "Run",
    "Trial",
    "build_data",
    "export_winner",
    "open_run",
    "pipeline",
    "resume",
    "serve",
    "sweep",
    "train",
]

lean_imports.install()


def __getattr__(name: str) -> Any:
    """What `__all__` names is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'ftlib' has no attribute '{name}'")
    from ftlib import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
