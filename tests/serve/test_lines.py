"""What the rows of a step say travels as one message, and nothing of it is lost, whichever way it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from ftlib.registry.version import Version
from serve.engine import answer
from serve.engine.engine import Engine
from serve.engine.messages import Ask, Piece, Refusal, ReplyTo, Tally
from serve.engine.options import EngineOptions
from serve.front.lines import Call, Lines, call

from .test_engine import answer as answered
from .test_engine import ask, idle, run, text

STREAMS, LONG = 6, 60


@pytest.fixture(scope="module")
def version(adapters: Callable[[int], list[Version]]) -> Version:
    return adapters(1)[0]


@pytest.fixture(scope="module")
def engine(version: Version) -> Engine:
    return Engine(version, EngineOptions(max_rows=STREAMS))


class Near:
    """A handle of an engine in this process. `elsewhere`: on another machine, where there is no such socket."""

    def __init__(self, engine: Engine, elsewhere: bool = False) -> None:
        self._engine, self._elsewhere = engine, elsewhere
        self.generate, self.results = self, 0

    def remote(self, asked: Ask) -> Any:
        if self._elsewhere:
            asked = replace(asked, reply_to=ReplyTo("/nowhere/socket", 0))
        return Response(self, self._engine.generate(asked))


class Response:
    """As Serve's: an iterator that can be cancelled."""

    def __init__(self, near: Near, pieces: AsyncIterator[Piece | Refusal]) -> None:
        self._near, self._pieces = near, pieces

    def cancel(self) -> None:
        """The task that waits is cancelled, and the generator with it."""

    async def __aiter__(self) -> AsyncIterator[Piece | Refusal]:
        async for piece in self._pieces:
            self._near.results += 1
            yield piece


async def heard(asking: Call) -> tuple[Tally, int]:
    tally, pieces = Tally(), 0
    async for piece in asking:
        assert isinstance(piece, Piece), piece
        tally.add(piece)
        pieces += 1
    return tally, pieces


def streams(engine: Engine, version: Version, near: Near) -> tuple[list[tuple[Tally, int]], int, int]:
    """(what each stream heard, messages, steps)."""

    async def work() -> Any:
        engine._lines = answer.Lines()  # of this event loop
        lines, before = Lines(), engine.steps
        calls = [await call(lines, near, ask(version, LONG, stream=True)) for _ in range(STREAMS)]
        found = await asyncio.gather(*map(heard, calls))
        return found, lines.messages, engine.steps - before

    return run(work())


def test_a_step_is_one_message_for_all_streams(
    engine: Engine, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "REST", 0.0)
    near = Near(engine)
    found, messages, steps = streams(engine, version, near)
    whole = run(answered(engine, ask(version, LONG)))
    assert [tally.choices[0].text for tally, _ in found] == [text(whole)] * STREAMS
    assert [tally.completion_tokens for tally, _ in found] == [LONG] * STREAMS
    assert messages <= steps + STREAMS  # one more where prompts were read
    assert sum(pieces for _, pieces in found) > 2 * messages
    assert all(pieces > 3 for _, pieces in found)  # not its first words and its last alone
    assert near.results == 0


def test_what_a_busy_side_has_not_passed_on_is_joined(
    engine: Engine, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "REST", 1e6)
    monkeypatch.setattr(answer, "LONGEST", 1e6)
    found, _, _ = streams(engine, version, Near(engine))
    assert len({tally.choices[0].text for tally, _ in found}) == 1
    assert all(pieces <= 3 for _, pieces in found)  # its first words, and its last, do not wait


def test_another_machine_gets_results_of_the_call(engine: Engine, version: Version) -> None:
    near = Near(engine, elsewhere=True)
    found, messages, _ = streams(engine, version, near)
    assert len({tally.choices[0].text for tally, _ in found}) == 1
    assert messages == 0
    assert near.results >= STREAMS


def test_whoever_hangs_up_frees_the_row(engine: Engine, version: Version) -> None:
    async def work() -> None:
        engine._lines = answer.Lines()
        asking = await call(Lines(), Near(engine), ask(version, 3000, stream=True))
        await anext(asking)
        asking.cancel()
        await idle(engine)

    run(work())


def test_a_refusal_comes_down_the_line_too(engine: Engine, version: Version) -> None:
    async def work() -> Any:
        engine._lines = answer.Lines()
        asking = await call(Lines(), Near(engine), ask(version, 3000, stream=True, seconds=0.2))
        return await refusal_of(asking)

    assert run(work()).code == "deadline_exceeded"


async def refusal_of(asking: Call) -> Refusal:
    async for said in asking:
        if isinstance(said, Refusal):
            return said
    raise AssertionError
