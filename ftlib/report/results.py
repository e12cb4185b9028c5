"""`evaluation.json` and `answers.jsonl` as the report reads them: their shape is checked before a word is shown."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ftlib.files.json_files import damaged, read_json, read_rows
from ftlib.run.directory import Run
from ftlib.run.layout import ANSWERS, EVALUATION

WINNER = "winner"  # the contender


class Number(BaseModel):
    """A metric of one contender, with its interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Contender(BaseModel):
    """One that answered: the base, the base with examples, the winner."""

    numbers: dict[str, Number] = {}
    tokens_per_second: float | None = None
    seconds_per_answer: float | None = None
    what: str = ""


class Comparison(BaseModel):
    """Two contenders by one metric; a positive difference means that `ours` is better."""

    metric: str
    ours: str
    theirs: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    test: str = ""
    units: int = 0


class Task(BaseModel):
    """One task: who was asked, and by which metrics they are compared, the first one first."""

    role: str = "target"
    rows: int = 0
    units: int = 0
    data: str = ""
    hash: str = ""
    chose: bool = False  # whether trials were compared on these rows too
    metrics: dict[str, Literal["min", "max"]] = {}
    shares: list[str] = []
    contenders: dict[str, Contender] = {}
    comparisons: list[Comparison] = []

    def name_of(self, contender: str) -> str:
        """The winner by its trial, the others by their names."""
        what = self.contenders[contender].what if contender in self.contenders else ""
        return what if what and contender == WINNER else contender.replace("_", "-")


class Seeds(BaseModel):
    """The winner, trained again with other seeds."""

    metric: str
    values: dict[str, float | None] = {}
    mean: float | None = None
    std: float | None = None
    trial: str = ""
    lucky: bool = False


class Evaluation(BaseModel):
    """What `evaluation.json` says."""

    verdict: str = ""
    winner: str | None = None
    step: int | None = None
    time: float | None = None
    tasks: dict[str, Task] = {}
    ties: list[str] = []
    seeds: Seeds | None = None
    failed: list[str] = []


class Message(BaseModel):
    """One turn of a prompt."""

    role: str = ""
    content: str = ""


class AnswerRow(BaseModel):
    """A line of `answers.jsonl`: what a contender answered to a row of a task."""

    task: str
    contender: str
    row: int
    prompt: list[Message] = []
    reference: str | None = None
    answer: str = ""
    scores: dict[str, float | None] = Field(default_factory=dict)


Shape = TypeVar("Shape", bound=BaseModel)


def evaluation_of(run: Run) -> Evaluation | None:
    """None where the run was not evaluated. Raises FtlibError for a damaged file."""
    file = run.path / EVALUATION
    told = read_json(file, dict)
    try:
        return None if told is None else Evaluation.model_validate(told)
    except ValidationError as error:
        raise damaged(file, _why(error)) from None


def answers_of(run: Run) -> list[AnswerRow]:
    """All answers, in the order of the file. Raises FtlibError for a damaged row."""
    file = run.path / ANSWERS
    found = []
    for number, row in enumerate(read_rows(file), 1):
        try:
            found.append(AnswerRow.model_validate(row))
        except ValidationError as error:
            raise damaged(file, f"line {number}: {_why(error)}") from None
    return found


def _why(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
