"""What a step does with a row, as a generator: it yields requests, gets their answers, and returns the row's result.

    def paraphrase(writing: Writing) -> Job:
        (reply,) = yield [writing.request("Say it in other words: ...")]
        ...
        return result

The jobs of a block go on together: the first requests of all rows are asked, then the second ones, and so on. A job
whose requests all stay without an answer ends there, and its row is dropped with the reason.

`asking` makes a whole step of jobs: blocks say what they will ask, the budget is divided among them in proportion, and
`apply` asks. So a block never waits for another one, and the same budget gives the same rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config.recipe.teacher import TeacherSection
from ftlib.curate.rows import FROM, ID, Row
from ftlib.curate.step import Context, Result, Settings, WholeStep
from ftlib.curate.teachers.answering import answered
from ftlib.curate.teachers.purse import Purse
from ftlib.curate.teachers.request import Answered, Missing, Reply, Request

if TYPE_CHECKING:
    import pyarrow as pa

Job = Generator[list[Request], list[Reply | None], Result]
SEED_BITS = 31
SIGNS = ("teacher", "requests", "read", "written", "shown")


class NoAnswer(Exception):
    """None of a job's requests has an answer."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(missing.reason)
        self.missing = missing


@dataclass(frozen=True)
class Writing:
    """A row that is worked on. `shown` are rows of the whole data that may be shown as examples, the same for all."""

    row: Row
    settings: Any
    context: Context
    shared: Any = None
    shown: Sequence[Row] = ()

    def request(
        self,
        messages: str | Sequence[dict[str, Any]],
        number: int = 0,
        teacher: TeacherSection | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Request:
        """A request of the row, the `number`-th. A text is a chat of one turn; what is not said is the step's."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return Request(
            teacher or self.settings.teacher,
            tuple({"role": str(turn["role"]), "content": str(turn["content"])} for turn in turns),
            self.settings.max_tokens if max_tokens is None else max_tokens,
            self.settings.temperature if temperature is None else temperature,
            self.context.draw(f"{self.row[ID]}\0{number}") % 2**SEED_BITS,
        )


@dataclass(frozen=True)
class Later:
    """What a job asks after its first requests, for the estimate: so many requests for each of the first."""

    teacher: TeacherSection
    times: float
    max_tokens: int


def _nothing(settings: Settings) -> Any:
    return None


def _none_later(settings: Settings) -> list[Later]:
    return []


@dataclass(frozen=True)
class Asking:
    """A step that asks: `job` is done with each row. `later` says what follows the first requests. `shared` makes what
    all jobs of a block share (a file that was read). `shown`: how many rows of the data every job may show."""

    job: Callable[[Writing], Job]
    later: Callable[[Settings], list[Later]] = _none_later
    shared: Callable[[Settings], Any] = _nothing
    shown: int = 0

    def sign(self, rows: Sequence[Row], settings: Settings, context: Context) -> pa.Table:
        """What the block will ask of each teacher: requests, tokens to read (about) and to write (at most). Its first
        line also has rows that may be shown."""
        import pyarrow as pa

        totals = [[number, 0, 0, 0, ""] for number in range(len(settings.teachers))]
        for first in self._first(rows, settings, context):
            for request in first:
                _add(totals, settings, request.teacher, 1, request.about_read, request.max_tokens)
                for more in self.later(settings):
                    read = request.about_read + request.max_tokens
                    _add(totals, settings, more.teacher, more.times, read, more.max_tokens)
        totals[0][-1] = json.dumps(_lowest(rows, context, self.shown))
        kinds = (pa.int32(), pa.float64(), pa.float64(), pa.float64(), pa.string())
        return pa.table([list(column) for column in zip(*totals, strict=True)],
                        schema=pa.schema(list(zip(SIGNS, kinds, strict=True))))  # fmt: skip

    def decide(self, signs: Sequence[pa.Table], settings: Settings, context: Context) -> list[pa.Table]:
        """The part of each budget that a block gets, and the rows that all may show."""
        import pyarrow as pa

        blocks = [table.to_pylist() for table in signs]
        shown = json.dumps(
            _lowest([row for lines in blocks for row in json.loads(lines[0]["shown"])], context, self.shown)
        )
        parts = [_divided(settings.teachers[number], [lines[number] for lines in blocks])
                 for number in range(len(settings.teachers))]  # fmt: skip
        schema = pa.schema([("tokens", pa.float64()), ("money", pa.float64()), ("shown", pa.string())])
        return [
            pa.table(
                [[one[block][0] for one in parts], [one[block][1] for one in parts], [shown] * len(parts)],
                schema=schema,
            )
            for block in range(len(blocks))
        ]

    def apply(self, rows: Sequence[Row], verdict: pa.Table, settings: Settings, context: Context) -> Result:
        """Does the jobs of a block."""
        told = verdict.to_pylist()
        purses = [
            Purse(_limit(line["tokens"]), _limit(line["money"]), section.prices)
            for line, section in zip(told, settings.teachers, strict=True)
        ]
        shown, shared = json.loads(told[0]["shown"]), self.shared(settings)
        jobs = [_Running(row, self.job(Writing(row, settings, context, shared, shown))) for row in rows]
        for one in jobs:
            one.go_on(None)
        while any(one.waits for one in jobs):
            _round([one for one in jobs if one.waits], settings.teachers, purses)
        return _together(jobs)

    def _first(self, rows: Sequence[Row], settings: Settings, context: Context) -> list[list[Request]]:
        shared, found = self.shared(settings), []
        for row in rows:
            job = self.job(Writing(row, settings, context, shared))
            try:
                found.append(next(job))
            except StopIteration:
                continue
        return found


def asking(settings: Settings, work: Asking, files: Sequence[str] = (), version: int = 1) -> WholeStep:
    """The step of a recipe. `files` are those of its settings; the folders of its teachers are added. Where all
    teachers are at URLs, one process asks for all blocks, so that what a section says of requests at once, and in a
    minute, holds for the whole build."""
    folders = [one.model for one in settings.teachers if not one.is_url and Path(one.model).expanduser().is_dir()]
    at_urls = all(section.is_url for section in settings.teachers)
    return WholeStep(
        work.sign, work.decide, work.apply, lambda _: [*files, *folders], version, asks=True, in_one_process=at_urls
    )


@dataclass
class _Running:
    """A job, what it waits for, and what came of it."""

    row: Row
    job: Job
    waits: list[Request] = field(default_factory=list)
    result: Result | None = None

    def go_on(self, answers: Sequence[Answered] | None) -> None:
        try:
            if answers is None:
                self.waits = next(self.job)
            elif any(isinstance(one, Reply) for one in answers):
                self.waits = self.job.send([one if isinstance(one, Reply) else None for one in answers])
            else:
                missing = next(one for one in answers if isinstance(one, Missing))
                self.waits = self.job.throw(NoAnswer(missing))
        except StopIteration as end:
            self.waits, self.result = [], end.value
        except NoAnswer as none:
            self.waits, self.result = [], Result()
            self.result.drop(self.row, none.missing.reason, none.missing.detail)


def _round(jobs: Sequence[_Running], teachers: Sequence[TeacherSection], purses: Sequence[Purse]) -> None:
    """The requests that all jobs wait for, asked of their teachers; then each goes on."""
    requests = [request for one in jobs for request in one.waits]
    answers: list[Answered | None] = [None] * len(requests)
    places = [_place(teachers, request.teacher) for request in requests]
    order = sorted(range(len(requests)), key=lambda number: places[number])
    for place, group in groupby(order, key=lambda number: places[number]):
        numbers = list(group)
        found = answered(teachers[place], [requests[number] for number in numbers], purses[place])
        for number, answer in zip(numbers, found, strict=True):
            answers[number] = answer
    begin = 0
    for one in jobs:
        end = begin + len(one.waits)
        one.go_on([answer for answer in answers[begin:end] if answer is not None])
        begin = end


def _place(teachers: Sequence[TeacherSection], teacher: TeacherSection) -> int:
    return next(number for number, one in enumerate(teachers) if one is teacher or one == teacher)


def _together(jobs: Sequence[_Running]) -> Result:
    whole = Result()
    for one in jobs:
        assert one.result is not None
        whole.kept += one.result.kept
        whole.dropped += one.result.dropped
        whole.changed += one.result.changed
    return whole


def _limit(part: float | None) -> float:
    return math.inf if part is None else part


def _add(totals: list[Any], settings: Settings, teacher: TeacherSection, times: float, read: int, written: int) -> None:
    line = totals[_place(settings.teachers, teacher)]
    for place, more in ((1, times), (2, times * read), (3, times * written)):
        line[place] += more


def _lowest(rows: Sequence[Row], context: Context, count: int) -> list[Row]:
    """The rows with the lowest draws: the same however rows are cut into blocks."""
    return sorted(rows, key=lambda row: (context.draw(f"shown\0{row[ID]}"), row[FROM]))[:count]


def _divided(section: TeacherSection, lines: Sequence[dict[str, Any]]) -> list[tuple[float | None, float | None]]:
    """Of a budget the part of each block, by what it expects to take. Tokens and money, None without a limit."""
    read, written = section.prices
    tokens = [line["read"] + line["written"] for line in lines]
    money = [line["read"] * read + line["written"] * written for line in lines]
    return list(zip(_shares(section.max_total_tokens, tokens), _shares(section.max_cost, money), strict=True))


def _shares(whole: float | None, weights: Sequence[float]) -> list[float | None]:
    total = sum(weights)
    return [None if whole is None else whole * weight / total if total else 0.0 for weight in weights]
