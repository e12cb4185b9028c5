"""Two answers to each prompt, for people to judge: of two files of answers, or of two contenders of a run."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ftlib.errors import DataError, InputError, nearest
from ftlib.evaluation.results import TaskResult
from ftlib.files.json_files import parse_json, read_rows
from ftlib.run.layout import ANSWERS

Place = tuple[str, int]  # a prompt as JSON, and how often it has come before


@dataclass(frozen=True)
class Pair:
    """One prompt, a chat up to the answer that is asked for, and what A and B answer."""

    prompt: tuple[Mapping[str, str], ...]
    a: str
    b: str

    @cached_property
    def id(self) -> str:
        """16 hex digits of all that a voter sees: a vote for other answers is no vote for these."""
        seen = json.dumps([self.prompt, self.a, self.b], sort_keys=True)
        return hashlib.sha256(seen.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def same(self) -> bool:
        """Whether there is nothing to choose."""
        return self.a == self.b


@dataclass(frozen=True)
class Pairs:
    """The pairs of A and B, each once; `unpaired` rows have a prompt that only one of the two answers."""

    a: str
    b: str
    pairs: tuple[Pair, ...]
    unpaired: int = 0

    @property
    def open(self) -> tuple[Pair, ...]:
        """Those that a person is asked about."""
        return tuple(pair for pair in self.pairs if not pair.same)


def pairs(a: str, b: str) -> Pairs:
    """The answers of two files to the same prompts: JSON lines with `prompt` (a text, or a chat) and `answer`. A prompt
    that comes several times is paired in its order.

    Raises InputError where they have no prompt in common, and DataError, with the line, for a file that has none.
    """
    ours, theirs = (_by_place(_file(Path(path))) for path in (a, b))
    names = (Path(a).stem, Path(b).stem) if Path(a).stem != Path(b).stem else (a, b)
    return _paired(names, ours, theirs, f"{a} and {b} have no prompt in common: answer the same prompts with both.")


def pairs_of_task(done: TaskResult, a: str, b: str) -> Pairs:
    """The answers of two contenders that have just done a task."""
    ours, theirs = (_by_place(_of_contender(done, name)) for name in (a, b))
    return _paired((a, b), ours, theirs, f"{a} and {b} have no prompt in common.")


def _of_contender(done: TaskResult, name: str) -> list[tuple[str, str]]:
    rows = zip(done.questions, done.answers[name], strict=True)
    return [_row(name, {"prompt": list(question.prompt), "answer": answer.text}) for question, answer in rows]


def pairs_of_run(run: Path, contenders: Sequence[str], task: str | None = None) -> Pairs:
    """The answers of two contenders of a run to one of its tasks; without `task`, to the only one that there is.

    Raises InputError, with what there is, for a run without answers and for other tasks and contenders.
    """
    rows = read_rows(run / ANSWERS)
    if not rows:
        raise InputError(f"{run} has no {ANSWERS}: evaluate it first, or give two files of answers.")
    task = _task(rows, task)
    rows = [row for row in rows if row.get("task") == task]
    known = list(dict.fromkeys(str(row.get("contender")) for row in rows))
    if len(contenders) != 2 or contenders[0] == contenders[1]:
        raise InputError(f"--contenders: give two of {', '.join(known)}, with a comma between them.")
    for name in contenders:
        if name not in known:
            raise InputError(
                f"--contenders: '{name}' has no answers to {task}.{nearest(name, known)} There is {', '.join(known)}."
            )
    ours, theirs = (_by_place(_of_run(run, rows, name)) for name in contenders)
    return _paired(tuple(contenders), ours, theirs, f"{' and '.join(contenders)} have no prompt of {task} in common.")


def _task(rows: list[dict[str, Any]], task: str | None) -> str:
    known = list(dict.fromkeys(str(row.get("task")) for row in rows))
    if task is None and len(known) > 1:
        raise InputError(f"--task: name one of {', '.join(known)}.")
    if task is not None and task not in known:
        raise InputError(f"--task: there is no task '{task}'.{nearest(task, known)} There is {', '.join(known)}.")
    return task or known[0]


def _paired(names: tuple[str, ...], ours: dict[Place, str], theirs: dict[Place, str], nothing: str) -> Pairs:
    both = [place for place in ours if place in theirs]
    if not both:
        raise InputError(nothing)
    made = (Pair(tuple(json.loads(place[0])), ours[place], theirs[place]) for place in both)
    unpaired = len(ours) + len(theirs) - 2 * len(both)
    return Pairs(names[0], names[1], tuple({pair.id: pair for pair in made}.values()), unpaired)


def _by_place(answers: Iterable[tuple[str, str]]) -> dict[Place, str]:
    """The answers by their prompts; of a prompt that comes again, by how often it came before."""
    seen: Counter[str] = Counter()
    found: dict[Place, str] = {}
    for prompt, answer in answers:
        found[prompt, seen[prompt]] = answer
        seen[prompt] += 1
    return found


def _file(path: Path) -> list[tuple[str, str]]:
    """Prompts, as JSON, and answers."""
    if not path.is_file():
        raise InputError(f"{path} is no file: give a file of answers, JSON lines with 'prompt' and 'answer'.")
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    found = [_row(f"{path}, line {number}", _parsed(f"{path}, line {number}", line)) for number, line in lines]
    if not found:
        raise DataError(f"{path} is empty: give JSON lines with 'prompt' and 'answer'.")
    return found


def _of_run(run: Path, rows: list[dict[str, Any]], contender: str) -> list[tuple[str, str]]:
    return [_row(str(run / ANSWERS), row) for row in rows if row.get("contender") == contender]


def _parsed(where: str, line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise DataError(f"{where}: {error}.") from None


def _row(where: str, row: Any) -> tuple[str, str]:
    if not isinstance(row, dict) or not isinstance(row.get("answer"), str):
        raise DataError(f"{where}: there is no text under 'answer': give JSON lines with 'prompt' and 'answer'.")
    prompt = row.get("prompt")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(turns, list) or not turns or not all(map(_is_turn, turns)):
        raise DataError(
            f"{where}: 'prompt' is neither a text nor a chat, a list of mappings with 'role' and 'content'."
        )
    chat = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    return json.dumps(chat, sort_keys=True), row["answer"]


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
