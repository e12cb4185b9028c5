"""Writing where the storage may be full or out of reach for a while: tried again for a minute, then a StorageError.

What counts is the error, not who raised it: safetensors and torch wrap the system's in their own.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ftlib.errors import StorageError

Result = TypeVar("Result")
SECONDS = float(os.environ.get("FTLIB_STORAGE_PATIENCE_S", "60"))
PAUSE = 0.5
NAMES = "ENOSPC EDQUOT EIO EROFS ESTALE ETIMEDOUT EHOSTDOWN EHOSTUNREACH ENOTCONN EREMOTEIO"
ERRNOS = {getattr(errno, name) for name in NAMES.split() if hasattr(errno, name)}
OF_SAFETENSORS = re.compile(r"Os \{ code: (\d+)")
OF_TORCH = "PytorchStreamWriter failed writing"


def storage_trouble(error: BaseException) -> str | None:
    """What is wrong with the storage, in a few words; None where the error is of another kind."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno is not None and error.errno in ERRNOS else None
    wrapped = OF_SAFETENSORS.search(str(error))
    if wrapped and int(wrapped.group(1)) in ERRNOS:
        return os.strerror(int(wrapped.group(1)))
    return "it takes no more data" if OF_TORCH in str(error) else None


def patiently(write: Callable[[], Result], where: Path) -> Result:
    """What `write` returns, which must be harmless to do twice. Raises StorageError after a minute of the same
    trouble."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return write()
        except Exception as error:
            trouble = storage_trouble(error)
            if trouble is None:
                raise
            if time.monotonic() >= deadline:
                raise StorageError(given_up(where, trouble)) from None
        time.sleep(PAUSE)


def given_up(where: Path, trouble: str) -> str:
    """The sentence of a StorageError."""
    return f"storage: {where} cannot be written ({trouble}): free space or bring it back, then resume the run."
