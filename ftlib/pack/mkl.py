"""What MKL is told before it is loaded, so that a row of a product does not depend on the rows beside it.

On Intel's processors MKL cuts a product by the number of its rows, and a cut elsewhere rounds elsewhere; without STRICT
it does so in every mode. On other makers' it does not, and STRICT would only cost time. MKL reads its variables once,
with torch: so this file imports nothing heavy.
"""

from __future__ import annotations

import os
from pathlib import Path

STRICT = {"MKL_CBWR": "AUTO,STRICT"}
PROCESSOR = Path("/proc/cpuinfo")


def ask_for_bits() -> None:
    """Sets MKL's variables. Call it before torch is imported. A variable that the user has set stays as it is;
    `isolation` then probes whether bits are equal."""
    if PROCESSOR.exists() and "GenuineIntel" in PROCESSOR.read_text():
        for name, value in STRICT.items():
            os.environ.setdefault(name, value)
