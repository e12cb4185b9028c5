"""Where the pieces of a request go: to whoever iterates over its call, or down a line to the HTTP side.

The batch's thread passes on all that a step said with one call of the event loop, and a line sends it as one message.
Ray's own way takes a message a piece, which costs as much as a row's token of a small model.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import TypeAlias

from serve.engine.messages import Piece, Refusal, joined

Said: TypeAlias = Piece | Refusal
SIZE = 4  # bytes in front of a message that say how long it is
PASSED_ON = b"+"  # what comes back for a message, when the HTTP side has passed on its pieces
REST = 3.0  # times as long as that took, until the next: the HTTP side has a quarter of the time, answers the rest
LONGEST = 0.25  # seconds that words wait for the rest to end


class Line:
    """A socket to an HTTP side of this machine.

    A message goes when the one before has been passed on and the rest is over: what is said meanwhile is joined. The
    first words of an answer and the last do not wait.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, self._loop = writer, asyncio.get_running_loop()
        self._pending: dict[int, list[Said]] = {}  # by the request's number
        self._urgent: dict[int, None] = {}
        self._sent: deque[float] = deque()  # when, of each message that is not passed on
        self._passed = self._due = 0.0  # when the last was, and when the rest ends
        self._resting: asyncio.TimerHandle | None = None
        self.hearing = asyncio.create_task(self._hear(reader))  # held: nobody else holds the task

    @property
    def closed(self) -> bool:
        return self._writer.is_closing()

    def say(self, number: int, said: Said, urgent: bool) -> None:
        """Something for a request, to be sent with the rest of the step."""
        self._pending.setdefault(number, []).append(said)
        if urgent:
            self._urgent[number] = None

    def send(self) -> None:
        """What was said: all of it, or what is urgent where the HTTP side is busy or rests."""
        self._write(self._urgent if self._sent or self._resting else self._pending)

    def _write(self, numbers: Iterable[int]) -> None:
        said = [(number, joined(self._pending.pop(number))) for number in list(numbers)]
        self._urgent.clear()
        if said and not self.closed:
            message = pickle.dumps(said)
            self._writer.write(len(message).to_bytes(SIZE, "big") + message)
            self._sent.append(self._loop.time())

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        """How long the HTTP side takes over its messages, until it is gone."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readexactly(len(PASSED_ON)):
                self._rest()
        self._writer.close()

    def _rest(self) -> None:
        now = self._loop.time()
        took, self._passed = now - max(self._sent.popleft(), self._passed), now
        self._due = min(max(self._due, now) + REST * took, now + LONGEST)
        if self._resting is not None:
            self._resting.cancel()
        self._resting = self._loop.call_at(self._due, self._on_rested)

    def _on_rested(self) -> None:
        self._resting = None
        self.send()


class Lines:
    """One line to each HTTP side. Only one event loop uses them."""

    def __init__(self) -> None:
        self._lines: dict[str, asyncio.Task[Line]] = {}

    async def to(self, socket: str) -> Line | None:
        """None where the HTTP side is on another machine: its socket is not here."""
        there = self._lines.get(socket)
        if there is None or (there.done() and (there.exception() or there.result().closed)):
            there = self._lines[socket] = asyncio.create_task(_connected(socket))
        try:
            return await there
        except OSError:
            return None


async def _connected(socket: str) -> Line:
    return Line(*await asyncio.open_unix_connection(socket))


class Answer:
    """One request's ear. `hear` is called on its event loop."""

    def __init__(self, choices: int, prompt_tokens: int, read: str | None, line: Line | None, number: int) -> None:
        self.loop, self.line = asyncio.get_running_loop(), line
        self._number, self._left, self._begun = number, choices, set[int]()
        self._prompt_tokens, self._read = prompt_tokens, read
        self._heard: asyncio.Queue[Said] = asyncio.Queue()
        self._ended = asyncio.Event()

    def hear(self, said: Said) -> None:
        """One thing more."""
        urgent = True
        if isinstance(said, Piece):
            said, self._read = replace(said, prompt=self._read, prompt_tokens=self._prompt_tokens), None
            urgent = said.finish_reason is not None or said.index not in self._begun
            self._begun.add(said.index)
            self._left -= said.finish_reason is not None
        if not self._left or isinstance(said, Refusal):
            self._ended.set()
        if self.line is None:
            self._heard.put_nowait(said)
        else:
            self.line.say(self._number, said, urgent)

    async def pieces(self) -> AsyncIterator[Said]:
        """Up to the last, where they go down no line; there, nothing, until the last has gone."""
        if self.line is not None:
            await self._ended.wait()
            return
        while not (self._ended.is_set() and self._heard.empty()):
            heard = [await self._heard.get()]
            while not self._heard.empty():
                heard.append(self._heard.get_nowait())
            for said in joined(heard):  # who reads slowly gets fewer and longer pieces
                yield said
                if isinstance(said, Refusal):
                    return


def deliver_soon(said: list[tuple[Answer, Said]]) -> None:
    """All that a step said, from its thread: one call of each event loop that waits for some of it."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Answer, Said]]] = {}
    for answer, one in said:
        loops.setdefault(answer.loop, []).append((answer, one))
    for loop, own in loops.items():
        loop.call_soon_threadsafe(_deliver, own)


def _deliver(said: list[tuple[Answer, Said]]) -> None:
    for answer, one in said:
        answer.hear(one)
    for line in dict.fromkeys(answer.line for answer, _ in said if answer.line is not None):
        line.send()
