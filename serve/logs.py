"""shim"""

from __future__ import annotations

from typing import Any


class Logs:
    def __init__(self, options: Any) -> None:
        pass

    def wants_sample(self) -> bool:
        return False

    def access(self, visit: Any) -> None:
        pass

    def sample(self, visit: Any, ask: Any, tally: Any) -> None:
        pass
