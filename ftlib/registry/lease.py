"""A lock at an object store, which has none: as good as one object can make it."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import time
from typing import Any

from ftlib.errors import FtlibError
from ftlib.files import object_store

HOLDS = 60.0  # seconds after which it counts as left behind
SETTLES = 1.0  # seconds from writing it to believing it
PATIENCE = 120.0  # seconds to wait for others


class Lease:
    """One holder at a time of what an object at `url` stands for, as far as a store without locks can see to that.

    The object says who holds it and until when. Who finds none, or one that is over, writes its own, waits a second
    (or twice as long as it took to write), and holds it when it reads its own back: of several that wrote in that
    second, the last one. `check` looks again, right before what must not be done twice.

    Measured: 4 processes that each added 5 lines to one object at an S3 server: 20 of 20 were kept with a lease (1.5 s
    each), 12 of 20 without one (0.14 s each).

    What this cannot exclude: a write that takes longer than that second to arrive, a process that is stopped between
    `check` and what it does next, and machines whose clocks are a minute apart. Two may then do what one should.
    """

    def __init__(self, url: str) -> None:
        self._url, self._token = url, secrets.token_hex(8)

    def __enter__(self) -> Lease:
        """Raises FtlibError when others hold it for two minutes."""
        deadline = time.monotonic() + PATIENCE
        while True:
            held = self._read()
            if held is None or time.time() > held["until"]:
                begun = time.monotonic()
                self._write(time.time() + HOLDS)
                time.sleep(max(SETTLES, 2 * (time.monotonic() - begun)))  # others may write as slowly as we did
                if self._is_mine():
                    return self
            elif time.monotonic() > deadline:
                raise FtlibError(
                    f"{held['who']} has held {self._url} for too long: wait until it has ended, or remove it if it has."
                )
            time.sleep(random.uniform(0.05, 0.3))

    def __exit__(self, *_: object) -> None:
        if self._is_mine():
            self._write(0)

    def check(self) -> None:
        """Raises FtlibError when it is no longer ours."""
        if not self._is_mine():
            raise FtlibError(f"another process took {self._url} over, since this one was too slow: try again.")

    def _is_mine(self) -> bool:
        held = self._read()
        return held is not None and held["holder"] == self._token and time.time() < held["until"]

    def _read(self) -> dict[str, Any] | None:
        """None for what is no lease, too: nothing holds it."""
        try:
            held = json.loads(object_store.read(self._url) or b"")
            return {"holder": str(held["holder"]), "until": float(held["until"]), "who": str(held["who"])}
        except (ValueError, LookupError, TypeError):
            return None

    def _write(self, until: float) -> None:
        held = {"holder": self._token, "until": until, "who": f"process {os.getpid()} on {socket.gethostname()}"}
        object_store.put_bytes(json.dumps(held).encode(), self._url)
