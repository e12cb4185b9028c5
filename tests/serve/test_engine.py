"""An engine under requests: who waits, who is refused, who is cut off, and that nobody else notices."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftlib.errors import FtlibError
from ftlib.registry.version import Version
from serve.engine import arrivals
from serve.engine import engine as engine_module
from serve.engine.arrivals import Arrivals
from serve.engine.engine import THREADS, Engine
from serve.engine.messages import Ask, Piece, Refusal, Refused, Tally
from serve.engine.options import EngineOptions

LONG = 3000  # tokens: seconds of work


@pytest.fixture(scope="module")
def versions(adapters: Callable[[int], list[Version]]) -> list[Version]:
    return adapters(3)


def ask(version: Version, max_tokens: int = 8, **options: Any) -> Ask:
    return Ask(version, ("the quick brown",), max_tokens=max_tokens, temperature=0.0, **options)


async def answer(engine: Engine, asked: Ask) -> Tally | Refusal:
    tally = Tally()
    async for piece in engine.generate(asked):
        if isinstance(piece, Refusal):
            return piece
        tally.add(piece)
    return tally


def text(tally: Tally | Refusal) -> str:
    assert isinstance(tally, Tally), tally
    return tally.choices[0].text


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 60))


async def idle(engine: Engine, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while engine.stats()["rows"] or engine.stats()["waiting"]:
        assert time.monotonic() < deadline, engine.stats()
        await asyncio.sleep(0.01)


def test_a_full_queue_says_when_to_come_again(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions(max_rows=2, max_waiting=1))

    async def work() -> list[Any]:
        return await asyncio.gather(*(answer(engine, ask(versions[0], 40)) for _ in range(6)))

    found = run(work())
    refused = [outcome for outcome in found if isinstance(outcome, Refusal)]
    assert 1 <= len(refused) <= 3
    assert all(outcome.status == 429 and outcome.retry_after and outcome.retry_after >= 1 for outcome in refused)
    assert len({text(outcome) for outcome in found if isinstance(outcome, Tally)}) == 1


def test_a_flood_of_one_adapter_does_not_starve_another(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions(max_rows=2, max_waiting=20))
    ended: list[str] = []

    async def one(version: Version, name: str) -> Tally | Refusal:
        found = await answer(engine, ask(version, 60))
        ended.append(name)
        return found

    async def work() -> list[Any]:
        flood = [asyncio.create_task(one(versions[0], "flood")) for _ in range(40)]
        await asyncio.sleep(0.1)  # the queue is full of it
        other = [asyncio.create_task(one(versions[1], "other")) for _ in range(3)]
        return [await asyncio.gather(*flood), await asyncio.gather(*other)]

    flood, other = run(work())
    assert all(isinstance(outcome, Tally) for outcome in other)  # the flood's last gave way
    assert any(isinstance(outcome, Refusal) for outcome in flood)
    assert ended.index("other") <= len([outcome for outcome in flood if isinstance(outcome, Refusal)]) + 6


def test_a_deadline_cuts_an_answer_off(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions(max_rows=1, deadline=0.5))

    async def work() -> list[Any]:
        first = asyncio.create_task(answer(engine, ask(versions[0], LONG)))
        await asyncio.sleep(0.1)
        waits = asyncio.create_task(answer(engine, ask(versions[0], 8, seconds=0.1)))
        return [await first, await waits, await answer(engine, ask(versions[0]))]

    first, waits, after = run(work())
    assert (first.status, first.code) == (408, "deadline_exceeded")
    assert waits.status == 429  # its turn never came
    assert text(after)


@pytest.mark.parametrize("stream", [True, False])
def test_whoever_hangs_up_frees_the_row(versions: list[Version], stream: bool) -> None:
    engine = Engine(versions[0], EngineOptions(max_rows=1))

    async def work() -> None:
        task = asyncio.create_task(answer(engine, ask(versions[0], LONG, stream=stream)))
        queued = asyncio.create_task(answer(engine, ask(versions[1], LONG, stream=stream)))
        await asyncio.sleep(0.3)
        assert engine.stats()["rows"] == 1
        assert engine.stats()["waiting"] == 1
        task.cancel()
        queued.cancel()
        await asyncio.gather(task, queued, return_exceptions=True)
        await idle(engine)
        assert text(await answer(engine, ask(versions[1])))

    run(work())


def test_choices_and_prompts_have_their_order(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions())

    async def work() -> list[Any]:
        both = Ask(versions[0], ("the quick", "lazy dog"), max_tokens=6, n=2, temperature=0.0)
        alone = [await answer(engine, Ask(versions[0], (one,), max_tokens=6, temperature=0.0)) for one in both.prompts]
        drawn = Ask(versions[0], ("the quick",), max_tokens=12, n=3, temperature=1.5, seed=5)
        return [await answer(engine, both), *alone, await answer(engine, drawn), await answer(engine, drawn)]

    both, first, second, drawn, again = run(work())
    assert [choice.text for choice in both.in_order] == [text(first)] * 2 + [text(second)] * 2
    assert [choice.text for choice in drawn.in_order] == [choice.text for choice in again.in_order]
    assert len({choice.text for choice in drawn.in_order}) == 3
    assert both.prompt_tokens == first.prompt_tokens + second.prompt_tokens


def test_a_step_that_fails_costs_its_rows_alone(versions: list[Version], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(versions[0], EngineOptions())
    step, failures = engine._batch.step, [RuntimeError("out of memory")]

    def fails_once() -> Any:
        if failures and len(engine._batch):
            raise failures.pop()
        return step()

    monkeypatch.setattr(engine._batch, "step", fails_once)

    async def work() -> list[Any]:
        lost = await asyncio.gather(*(answer(engine, ask(versions[0], 20)) for _ in range(3)))
        return [lost, await answer(engine, ask(versions[0])), await answer(engine, ask(versions[1]))]

    lost, *after = run(work())
    assert any(isinstance(outcome, Refusal) and outcome.status == 500 for outcome in lost)
    assert all(text(outcome) for outcome in after)


def test_more_than_the_cache_holds_is_refused_with_the_way_out(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions(cache_gb=0.001))
    refused = run(answer(engine, ask(versions[0], LONG)))
    assert isinstance(refused, Refusal)
    assert "cache_gb" in refused.message
    many = run(answer(Engine(versions[0], EngineOptions(max_rows=2)), ask(versions[0], n=3)))
    assert isinstance(many, Refusal)
    assert many.param == "n"


def test_a_slow_reader_gets_longer_pieces(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions())

    async def work() -> list[Piece]:
        pieces = []
        async for piece in engine.generate(ask(versions[0], 60, stream=True)):
            await asyncio.sleep(0.1)
            pieces.append(piece)
        return pieces

    pieces = run(work())
    whole = run(answer(engine, ask(versions[0], 60)))
    assert "".join(piece.text for piece in pieces) == text(whole)
    assert len(pieces) < 20


def test_first_words_do_not_wait_for_a_step(versions: list[Version], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, order = Engine(versions[0], EngineOptions()), []
    deliver, step = engine_module.deliver_soon, engine._batch.step

    def told(said: list[Any]) -> None:
        order.extend("told" for _ in said)
        deliver(said)

    def stepped() -> Any:
        order.append("step")
        return step()

    monkeypatch.setattr(engine_module, "deliver_soon", told)
    monkeypatch.setattr(engine._batch, "step", stepped)
    text(run(answer(engine, ask(versions[0], 12, stream=True))))
    assert order[:2] == ["told", "step"]


def test_an_adapter_that_does_not_fit_its_base_is_refused(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions())
    engine._loaded._modules = frozenset(name for name in engine._loaded._modules if "q_proj" not in name)
    refused = run(answer(engine, ask(versions[2])))
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.code) == (422, "model_not_loadable")
    assert "q_proj" in refused.message


def test_a_deadline_covers_the_reading_of_a_prompt(versions: list[Version], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens too: a tokenizer that takes its time keeps a thread, and not the request."""
    engine, ended = Engine(versions[0], EngineOptions(deadline=0.05)), threading.Event()
    monkeypatch.setattr(engine, "_sequences", lambda ask, until: ended.wait(60))
    try:
        refused = run(answer(engine, ask(versions[0])))
        assert isinstance(refused, Refusal)
        assert refused.status == 408
        assert not ended.is_set()
    finally:
        ended.set()


def test_rows_are_counted_before_they_are_made(versions: list[Version], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, made = Engine(versions[0], EngineOptions()), []
    monkeypatch.setattr(engine, "_sequences", lambda ask, until: made.append(ask))
    refused = run(answer(engine, Ask(versions[0], ("hi",) * 2048, n=16, logit_bias=dict.fromkeys(range(300), 1.0))))
    assert isinstance(refused, Refusal)
    assert refused.param == "n"
    assert "32768 answers at once" in refused.message
    assert made == []


def test_an_engine_whose_threads_do_not_come_back_is_not_well(versions: list[Version]) -> None:
    engine = Engine(versions[0], EngineOptions())

    async def work() -> None:
        await engine.check_health()
        engine._encoding = {asyncio.Future(): time.monotonic() - 1000 for _ in range(THREADS)}
        with pytest.raises(RuntimeError, match="do not come back"):
            await engine.check_health()

    run(work())


@pytest.mark.parametrize("away", [True, False], ids=["away", "slow"])
def test_a_version_that_is_not_here_says_when_to_come_again(away: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def bring(version: Version) -> Path:
        time.sleep(0 if away else 0.5)
        if away:
            raise FtlibError("the store is away")
        return Path()

    monkeypatch.setattr(arrivals, "_bring", bring)
    version: Any = SimpleNamespace(id="one@1", is_here=False)

    async def work() -> None:
        coming = Arrivals()
        with pytest.raises(Refused) as caught:
            await coming.wait(version, 5 if away else 0.1)
        assert (caught.value.refusal.status, caught.value.refusal.retry_after) == (503, 5)
        if not away:
            await coming.wait(version, 5)  # the next request waits for the same one, and it comes

    run(work())
