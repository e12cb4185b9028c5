"""What engines answer, as the HTTP side hears it: from those of its own machine down a line, one message a step for all
requests; from others piece by piece, as the call's own results."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import shutil
import tempfile
import weakref
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from serve.engine.answer import PASSED_ON, SIZE
from serve.engine.messages import Ask, Piece, Refusal, ReplyTo, joined

Heard: TypeAlias = Piece | Refusal | Exception | None  # None: the call has ended
TURNS = 3  # of the event loop, in which requests take their pieces, write them out, and hand them to Serve
LOST = 5.0  # seconds after a call's end in which its last pieces are still on the line


class Lines:
    """The socket that engines of this machine connect to. Its folder is its user's alone, and so are its messages."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Queue[Heard]] = {}
        self._numbers = itertools.count()
        self._socket: Path | None = None
        self._server: asyncio.Task[Any] | None = None
        self.messages = 0

    async def open(self) -> tuple[ReplyTo, asyncio.Queue[Heard]]:
        """A place for one request's pieces."""
        if self._server is None:
            folder = tempfile.mkdtemp(prefix="ftlib-line-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._socket = Path(folder) / "socket"
            self._server = asyncio.create_task(asyncio.start_unix_server(self._listen, self._socket))
        await self._server
        number = next(self._numbers)
        self._open[number] = asyncio.Queue()
        return ReplyTo(str(self._socket), number), self._open[number]

    def close(self, number: int) -> None:
        """Nobody listens any more."""
        self._open.pop(number, None)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(SIZE), "big")
                for number, pieces in pickle.loads(await reader.readexactly(size)):
                    for piece in pieces if number in self._open else ():
                        self._open[number].put_nowait(piece)
                self.messages += 1
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                writer.write(PASSED_ON)
        except asyncio.IncompleteReadError:  # the engine is gone; its calls say so themselves
            writer.close()


class Call:
    """One request at an engine: an iterator over its pieces, whichever way they come."""

    def __init__(self, lines: Lines, reply_to: ReplyTo, heard: asyncio.Queue[Heard], handle: Any, ask: Ask) -> None:
        self._lines, self._number, self._heard = lines, reply_to.number, heard
        self._left = ask.answers
        self._ready: deque[Piece | Refusal] = deque()
        self._by_line = True
        self._response = handle.generate.remote(replace(ask, reply_to=reply_to))
        self._waits = asyncio.create_task(self._wait())

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> Piece | Refusal:
        if not self._ready:
            self._ready.extend(await self._more())
        said = self._ready.popleft()
        self._left -= isinstance(said, Piece) and said.finish_reason is not None
        return said

    def cancel(self) -> None:
        """Nobody wants the rest. One that has come to its end ends by itself."""
        self._lines.close(self._number)
        if self._left:
            self._response.cancel()
            self._waits.cancel()

    async def _wait(self) -> None:
        try:
            async for said in self._response:
                self._by_line = False
                self._heard.put_nowait(said)
            self._heard.put_nowait(None)
        except Exception as error:
            self._heard.put_nowait(error)

    async def _more(self) -> list[Piece | Refusal]:
        """What is there, joined by choice: at least one. Raises what the call raised, and StopAsyncIteration."""
        if not self._left:
            raise StopAsyncIteration
        found = [await self._heard.get()]
        while not self._heard.empty():
            found.append(self._heard.get_nowait())
        said = [one for one in found if isinstance(one, Piece | Refusal)]
        if said:
            for end in (one for one in found if not isinstance(one, Piece | Refusal)):
                self._heard.put_nowait(end)
            return joined(said)
        if isinstance(found[0], Exception):
            raise found[0]
        if not self._by_line:
            raise StopAsyncIteration
        self._by_line = False  # its last pieces, or none
        try:
            return await asyncio.wait_for(self._more(), LOST)
        except TimeoutError:
            raise ConnectionError("the call ended, and its last pieces did not come down the line") from None


async def call(lines: Lines, handle: Any, ask: Ask) -> Call:
    """Asks an engine."""
    return Call(lines, *await lines.open(), handle, ask)
