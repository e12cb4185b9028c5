"""Where ftlib keeps what belongs to this user: the registry, caches and keys."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Where the registry and the caches live: `$FTLIB_HOME`, or `~/.ftlib`."""
    return Path(os.environ.get("FTLIB_HOME") or Path.home() / ".ftlib").expanduser().absolute()
