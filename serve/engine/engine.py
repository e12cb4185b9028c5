"""The deployment that holds one base model and answers for its versions. It knows of requests, deadlines, hang-ups and
queues; what a step is, `batch.py` knows.

One thread owns the batch and everything below it. Requests reach it through a queue under a lock, and hear from it
through their event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ray import serve

from ftlib.models.adapter_files import why_not_banked
from ftlib.registry.version import Version
from serve.engine.answer import Answer, Lines, Said, deliver_soon
from serve.engine.arrivals import Arrivals
from serve.engine.memory import SECONDS, bound_caches, give_back
from serve.engine.messages import Ask, Piece, Refusal, Refused
from serve.engine.options import APPLICATION, EngineOptions
from serve.engine.queue import FairQueue
from serve.engine.templates import LATE

log = logging.getLogger("ray.serve")
THREADS = 8  # that render and tokenize
GRACE = 30.0  # seconds after the deadline in which a thread may still come back
GROUP = 16  # prompts that may be read between two steps
BROKEN = Refusal("The engine failed to answer: its log says why.", None, "internal_error", 500, "server_error")


@dataclass(eq=False)
class Waiting:
    """One sequence of a request, until the batch has it and after."""

    sequence: Any
    key: str
    until: float
    answer: Answer
    arrived: float = field(default_factory=time.monotonic)
    begun: float = 0.0  # when its prompt was read
    first: float = 0.0  # when its first token was there
    gone: bool = False  # nobody listens
    lost: Exception | None = None  # its adapter could not be put into a slot


class Engine:
    """Answers for versions on one base. A base is known by one version of it, the rest come by request."""

    def __init__(self, version: Version, options: EngineOptions, threads: int = 1) -> None:
        """Raises FtlibError when the base is not the one that the version was trained on."""
        bound_caches(options.max_rows)
        from serve.engine.batch import Batch
        from serve.engine.model import Loaded, Tokenizers
        from serve.engine.prefixes import KEPT
        from serve.engine.slots import AdapterCache, Slots

        self._options = options
        self._loaded = Loaded(version, threads)
        self._banked = version.kind == "adapter" and not why_not_banked(version.id, version.weights)
        self._slots = Slots(self._loaded.model, options.max_adapters, self._loaded.dtype)
        self._arrivals, self._adapters_read, self._tokenizers = (
            Arrivals(),
            AdapterCache(2 * options.max_adapters),
            Tokenizers(),
        )
        self._cells = _cells(options.cache_gb, self._loaded)
        kept = min(KEPT, self._cells // 8)
        self._batch = Batch(self._loaded.model, self._slots, self._loaded.reads, kept)
        self._queue: FairQueue[Waiting] = FairQueue(options.max_waiting)
        self._active: dict[Any, Waiting] = {}  # by sequence
        self._work = threading.Condition()
        self._lines = Lines()
        self._said: list[tuple[Answer, Said]] = []  # in this step
        self._pace = 0.0  # seconds between two answers' ends, smoothed
        self._ended_at = time.monotonic()
        self.steps = self.row_steps = 0
        self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
        self._thread.start()
        self._telling: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="encode")
        self._encoding: dict[asyncio.Future[Any], float] = {}  # since when

    async def generate(self, ask: Ask) -> AsyncIterator[Piece | Refusal]:
        """One Refusal, or pieces of each choice up to its last one; where those go down a line, it only ends with them.

        Whoever stops listening frees the rows: at their next token, or before they began.
        """
        seconds = min(ask.seconds or math.inf, self._options.deadline)
        until = time.monotonic() + seconds
        try:
            ask.check_count(self._options.max_rows)
            await self._arrivals.wait(ask.version, seconds)
            sequences, read = await self._encoded(ask, until)
        except Refused as refused:
            yield refused.refusal
            return
        line = await self._lines.to(ask.reply_to.socket) if ask.reply_to else None
        prompt_tokens = sum(len(sequence.prompt) for sequence in sequences[:: ask.n])
        answer = Answer(len(sequences), prompt_tokens, read, line, ask.reply_to.number if ask.reply_to else 0)
        waiting = [Waiting(sequence, ask.writer, until, answer) for sequence in sequences]
        self._enter(waiting)
        try:
            async for piece in answer.pieces():
                yield piece
        finally:
            self._abandon(waiting)

    def stats(self) -> dict[str, float]:
        """Gauges and counters of this replica."""
        with self._work:
            waiting = len(self._queue)
        return {
            "rows": len(self._batch),
            "waiting": waiting,
            "steps": self.steps,
            "row_steps": self.row_steps,
            "tokens": self._batch.tokens,
            "adapters": len(self._slots.resident),
            "adapter_hits": self._slots.hits,
            "adapter_misses": self._slots.misses,
            "adapter_evictions": self._slots.evictions,
        }

    async def check_health(self) -> None:
        """Serve asks now and then. A batch whose thread is dead answers no one: Serve starts another replica."""
        self._tell_stats()
        if not self._thread.is_alive():
            raise RuntimeError("the thread of the batch died")
        overdue = time.monotonic() - self._options.deadline - GRACE
        if sum(began < overdue for began in self._encoding.values()) >= THREADS:
            raise RuntimeError("the threads that read prompts do not come back")

    def _tell_stats(self) -> None:
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        """Tells the HTTP side once a second how it goes, for its /metrics; where adapters were read, freed memory goes
        back."""
        context = serve.get_replica_context()
        api = serve.get_deployment_handle("Api", APPLICATION)
        read, due = 0, 0.0
        while True:
            with contextlib.suppress(Exception):  # an HTTP side that is away hears it next time
                await api.hear.remote(context.deployment, context.replica_id.unique_id, self.stats())
            if self._slots.misses > read and time.monotonic() > due:
                read, due = self._slots.misses, time.monotonic() + SECONDS
                await asyncio.to_thread(give_back)
            await asyncio.sleep(1)

    async def _encoded(self, ask: Ask, until: float) -> tuple[list[Any], str | None]:
        """The rows of a request, and what the first of them reads, where that is told. Raises Refused, also when they
        are not there in time: a tokenizer that does not end keeps its thread, and no request."""

        def encode() -> tuple[list[Any], str | None]:
            found = self._sequences(ask, until)
            return found, found[0].decode(found[0].prompt) if ask.tells_prompt else None

        began = time.monotonic()
        work = asyncio.get_running_loop().run_in_executor(self._threads, encode)
        self._encoding[work] = began
        work.add_done_callback(self._came_back)
        try:
            return await asyncio.wait_for(asyncio.shield(work), until - began)
        except TimeoutError:
            raise Refused(LATE) from None

    def _came_back(self, work: asyncio.Future[Any]) -> None:
        """A thread that reads a prompt is free again, perhaps after nobody waits for it any more."""
        del self._encoding[work]
        if not work.cancelled():
            work.exception()

    def _sequences(self, ask: Ask, until: float) -> list[Any]:
        """What the request asks for, ready to become rows. Raises Refused."""
        from serve.engine.model import encode, sentences
        from serve.engine.sampling import Sampling
        from serve.engine.sequence import Sequence as Row

        with sentences(ask.version):
            tokenizer = self._tokenizers.get(ask.version, ask.bare)
            decoder = self._tokenizers.decoder(tokenizer)
            spelling = self._tokenizers.spelling(tokenizer) if ask.logprobs is not None else None
            adapter = self._adapters_read.get(ask.version) if self._banked and not ask.bare else None
            if adapter is not None:
                self._loaded.check(adapter)
        found: list[Row] = []
        for prompt in encode(ask, tokenizer, self._loaded.context, self._loaded.vocabulary, until):
            limit = self._limit(len(prompt), ask.max_tokens)
            for _ in range(ask.n):
                sequence = Row(
                    prompt=prompt,
                    limit=limit,
                    ends=self._loaded.ends | {tokenizer.eos_token_id},
                    sampling=Sampling(**ask.sampling(len(found) % ask.n)),
                    decode=decoder,
                    stop=ask.stop,
                    adapter=adapter,
                    index=len(found),
                    streams=ask.stream,
                    client=ask.client,
                    spelling=spelling,
                )
                found.append(sequence)
        return found

    def _limit(self, prompt: int, asked: int | None) -> int:
        context = self._loaded.context
        room = self._options.max_new_tokens if context is None else context - prompt
        limit = min(room, self._options.max_new_tokens, asked or room)
        if prompt + limit > self._cells:
            message = (
                f"max_tokens: {prompt} tokens of prompt and {limit} of answer are more than the {self._cells} that fit "
                "into the cache: ask for less, or give the endpoint a larger cache_gb."
            )
            raise Refused(Refusal(message, "max_tokens", "context_length_exceeded"))
        return limit

    # --- between requests and the thread ----------------------------------------------------------------------

    def _enter(self, waiting: list[Waiting]) -> None:
        with self._work:
            self._queue.limit = self._options.max_waiting + max(0, self._options.max_rows - len(self._active))
            for waiter in waiting:
                dropped = self._queue.put(waiter.key, waiter)
                if dropped is not None:
                    deliver_soon([(dropped.answer, self._busy())])
            self._work.notify()

    def _abandon(self, waiting: list[Waiting]) -> None:
        with self._work:
            for waiter in waiting:
                waiter.gone = True
                self._queue.remove(waiter.key, waiter)

    def _busy(self) -> Refusal:
        seconds = max(1, math.ceil(len(self._queue) * self._pace / 2))
        message = f"Too many requests are waiting: try again in {seconds} s."
        return Refusal(message, None, "rate_limit_exceeded", 429, "rate_limit_error", min(seconds, 60))

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception as error:  # out of memory among others: those in the batch lose, the next begin anew
                log.error("A step of the batch failed.", exc_info=error)
                self._fail()

    def _turn(self) -> None:
        """Takes in who waits, makes a step, and tells what came of it."""
        with self._work:
            while not len(self._queue) and not len(self._batch):
                self._work.wait()
            self._expire()
            group = self._next()
        for begun in self._batch.admissions([waiter.sequence for waiter in group]):
            self._report(begun)
            self._pass_on()  # first words wait for no step, and for no other prompt
            self.row_steps += len(begun)
        touched = self._batch.step()
        self.steps += 1
        self.row_steps += len(touched)
        self._report(touched)
        self._clear_away()
        self._pass_on()

    def _next(self) -> list[Waiting]:
        """Who becomes a row now: in fair order, while there are rows, slots and places in the cache."""
        group: list[Waiting] = []
        users = Counter(waiter.key for waiter in self._active.values())
        while len(group) < GROUP and (waiter := self._queue.take(users, self._fits)) is not None:
            if waiter.lost is not None:
                log.error("%s could not be put into a slot.", waiter.key, exc_info=waiter.lost)
                self._said.append((waiter.answer, BROKEN))
                continue
            waiter.begun = time.monotonic()
            self._active[waiter.sequence] = waiter
            users[waiter.key] += 1
            group.append(waiter)
        return group

    def _fits(self, waiter: Waiting) -> bool:
        """Whether there is a row, a place in the cache and a slot for it; the slot is taken."""
        rows = [*self._active, waiter.sequence]
        longest = max(len(row.prompt) + row.limit for row in rows)
        if len(rows) > self._options.max_rows or len(rows) * longest > self._cells:
            return False
        try:
            return waiter.sequence.adapter is None or self._slots.hold(waiter.sequence.adapter)
        except Exception as error:  # it must not stop the thread, nor stay at the head of its line
            waiter.lost = error
            return True

    def _expire(self) -> None:
        now = time.monotonic()
        for waiter in [waiter for waiter in self._queue if now > waiter.until]:
            self._queue.remove(waiter.key, waiter)
            self._said.append((waiter.answer, self._busy()))

    def _report(self, touched: list[Any]) -> None:
        now = time.monotonic()
        for sequence in touched:
            waiter = self._active.get(sequence)
            if waiter is None:
                continue
            waiter.first = waiter.first or now
            if sequence.refusal is not None:
                self._said.append((waiter.answer, sequence.refusal))
            elif not waiter.gone and (piece := sequence.piece()) is not None:
                times = {"queued": waiter.begun - waiter.arrived, "waited": waiter.first - waiter.arrived}
                self._said.append((waiter.answer, replace(piece, **times)))
            if sequence.ended:
                del self._active[sequence]
                self._count_end()

    def _count_end(self) -> None:
        now = time.monotonic()
        self._pace, self._ended_at = 0.9 * self._pace + 0.1 * (now - self._ended_at), now

    def _clear_away(self) -> None:
        """Rows that nobody waits for, and rows whose time is over."""
        now = time.monotonic()
        for sequence, waiter in list(self._active.items()):
            if waiter.gone or now > waiter.until:
                self._batch.drop(sequence)
                del self._active[sequence]
                if not waiter.gone:
                    self._said.append((waiter.answer, _too_late(waiter)))

    def _fail(self) -> None:
        self._batch.clear()
        self._said += [(waiter.answer, BROKEN) for waiter in self._active.values()]
        self._active.clear()
        self._pass_on()

    def _pass_on(self) -> None:
        """What the step said, to everyone at once."""
        said, self._said = self._said, []
        deliver_soon(said)


def _too_late(waiter: Waiting) -> Refusal:
    seconds = waiter.until - waiter.arrived
    message = f"The answer was not finished within {seconds:.0f} s: ask for fewer tokens, or for more time."
    return Refusal(message, None, "deadline_exceeded", 408, "timeout_error")


def _cells(gigabytes: float | None, loaded: Any) -> int:
    """How many tokens' keys and values may be held."""
    import psutil
    import torch

    if gigabytes is not None:
        free = gigabytes * 1e9
    elif torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0] * 0.6
    else:
        free = psutil.virtual_memory().available * 0.2
    return max(int(free / loaded.bytes_per_token / 4), 1)  # buffers are powers of two, in rows and in columns
