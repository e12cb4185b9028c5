"""The files of versions on their way to this machine, where the registry is at a URL."""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ftlib.errors import FtlibError
from ftlib.registry.version import Version
from serve.engine.messages import Refusal, Refused

AT_ONCE = 4  # versions

log = logging.getLogger("ray.serve")


class Arrivals:
    """Brings each version once, in threads of its own: whoever asks for one that is here never waits for another."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bring")
        self._coming: dict[str, asyncio.Future[Path]] = {}

    async def wait(self, version: Version, seconds: float = math.inf) -> None:
        """Until the version is here. Raises Refused when it is not in time, or the registry does not give it."""
        if version.is_here:
            return
        coming = self._coming.get(version.id)
        if coming is None:
            loop = asyncio.get_running_loop()
            coming = self._coming[version.id] = loop.run_in_executor(self._threads, _bring, version)
            coming.add_done_callback(lambda _: self._coming.pop(version.id))
        try:
            await asyncio.wait_for(asyncio.shield(coming), None if seconds == math.inf else seconds)
        except (FtlibError, TimeoutError) as error:
            log.error("%s is not on this machine.", version.id, exc_info=error)
            message = f"{version.id} is on its way here from the registry, which is slow or away: try again."
            raise Refused(Refusal(message, "model", "model_not_loadable", 503, "server_error", 5)) from error


def _bring(version: Version) -> Path:
    return version.path
