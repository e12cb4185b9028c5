"""Requests answered in order, many at once, each answer paid for once and within the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from ftlib.config.recipe.teacher import TeacherSection
from ftlib.curate.teachers.at_url import at_url, stopped
from ftlib.curate.teachers.kept_answers import keep, kept
from ftlib.curate.teachers.loaded import loaded
from ftlib.curate.teachers.purse import Purse
from ftlib.curate.teachers.request import Answered, Missing, Reply, Request

OVER = Missing("budget", "the budget has ended")


class Teacher(Protocol):
    """Who answers. `lot` requests are asked together, `at_once` lots at once; `identity` is what answers depend on."""

    lot: int
    at_once: int

    @property
    def identity(self) -> str: ...

    def ask(self, requests: Sequence[Request]) -> list[Answered]: ...


def teacher_of(section: TeacherSection) -> Teacher:
    """Who answers for a section, one in a process. Raises ConfigError for a key that is not there."""
    return at_url(section) if section.is_url else loaded(section)


def answered(section: TeacherSection, requests: Sequence[Request], purse: Purse) -> list[Answered]:
    """The answer to each request, in order. From the first that the purse has no room for, none is asked.

    Raises FtlibError where a teacher does not answer any more, or answers nothing of all that it is asked. What was
    answered is kept.
    """
    teacher = teacher_of(section)
    keys = [request.key(teacher.identity) for request in requests]
    first = {key: number for number, key in reversed(list(enumerate(keys)))}
    with ThreadPoolExecutor(teacher.at_once) as pool:
        asking = _Asking(teacher, purse, pool, requests, keys)
        try:
            for number in sorted(first.values()):
                asking.take(number)
            asking.finish()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    found = [asking.found[first[key]] for key in keys]
    _check(section, found)
    return found


def _check(section: TeacherSection, found: Sequence[Answered]) -> None:
    """Raises FtlibError where nobody has answered: rows would be dropped for a server that is away."""
    why = [one.detail for one in found if isinstance(one, Missing) and one.reason == "no_answer"]
    if why and not any(isinstance(one, Reply) for one in found):
        raise stopped(section.model, why[0])


@dataclass
class _Asking:
    """Requests under way. What comes is kept and settled in this thread's purse."""

    teacher: Teacher
    purse: Purse
    pool: ThreadPoolExecutor
    requests: Sequence[Request]
    keys: Sequence[str]
    found: dict[int, Answered] = field(default_factory=dict)
    _lot: list[int] = field(default_factory=list)
    _running: dict[Future[list[Answered]], list[int]] = field(default_factory=dict)

    def take(self, number: int) -> None:
        """Begins a request, as soon as it surely fits into the purse."""
        request = self.requests[number]
        while not self.purse.ended and not self.purse.fits(request):
            self._send()
            if not self._running:
                self.purse.ended = True
            self._receive()
        if self.purse.ended:
            self.found[number] = OVER
            return
        self.purse.hold(number, request)
        if (known := kept(self.keys[number])) is not None:
            self._settle(number, known)
            return
        self._lot.append(number)
        if len(self._lot) == self.teacher.lot:
            self._send()

    def finish(self) -> None:
        """Waits for all that is under way."""
        self._send()
        while self._running:
            self._receive()

    def _send(self) -> None:
        if not self._lot:
            return
        while len(self._running) >= self.teacher.at_once:
            self._receive()
        lot, self._lot = self._lot, []
        self._running[self.pool.submit(self._ask, lot)] = lot

    def _ask(self, lot: Sequence[int]) -> list[Answered]:
        """In a thread of the pool: what was answered is kept there and then."""
        answers = self.teacher.ask([self.requests[number] for number in lot])
        for number, answer in zip(lot, answers, strict=True):
            if isinstance(answer, Reply):
                keep(self.keys[number], answer)
        return answers

    def _receive(self) -> None:
        for future in self._done():
            for number, answer in zip(self._running.pop(future), future.result(), strict=True):
                self._settle(number, answer)

    def _done(self) -> Iterator[Future[list[Answered]]]:
        if self._running:
            yield from wait(self._running, return_when=FIRST_COMPLETED).done

    def _settle(self, number: int, answer: Answered) -> None:
        self.found[number] = answer
        self.purse.settle(number, answer)
