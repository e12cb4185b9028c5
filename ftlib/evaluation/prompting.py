"""The base with a good prompt: shown examples (few-shot), or given passages that may hold the answer (retrieval)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ftlib.config import DataSection, TaskSection
from ftlib.errors import InputError
from ftlib.evaluation.task import Question, Turn, read_questions

Prompting = Callable[[Question], Question]
PASSAGES, PASSAGE_CHARACTERS = 3, 1200
TEXTS = (".txt", ".md")
MOST_CHARACTERS = 50_000_000  # of a folder of passages


def few_shot(task: TaskSection, data: DataSection, count: int, seed: int) -> Prompting:
    """Puts `count` rows of the training data before each question, as turns that were answered.

    The same rows for each question, drawn with `seed`, without their system messages, and never a row of the task
    itself. Raises InputError where the training rows have no questions with answers.
    """
    training = task.model_copy(update={"data": data.train, "limit": None, "group": None, "system": None})
    asked = [_bare(question).prompt for question in read_questions(task, data)]
    rows = [_bare(row) for row in read_questions(training, data, "data.train")]
    rows = [row for row in rows if len(row.prompt) == 1 and row.prompt not in asked]
    if not rows:
        raise InputError("few_shot: data.train has no single question with its answer that is not in the task too.")
    shown = random.Random(seed).sample(rows, min(count, len(rows)))
    examples = tuple(turn for row in shown for turn in (*row.prompt, _assistant(row.reference)))

    def prompting(question: Question) -> Question:
        opening = tuple(turn for turn in question.prompt if turn["role"] == "system")
        rest = question.prompt[len(opening) :]
        return replace(question, prompt=(*opening, *examples, *rest))

    return prompting


def rag(folder: Path) -> Prompting:
    """Puts the best passages of a folder's text files (BM25) before each question.

    Raises InputError where the folder has no text, or the package bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError:
        raise InputError("rag needs the package bm25s: pip install 'ftlib[metrics]'.") from None
    passages = _passages(folder)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(passages, show_progress=False), show_progress=False)

    def prompting(question: Question) -> Question:
        asked = str(question.prompt[-1]["content"])
        words = bm25s.tokenize([asked], show_progress=False)
        found, _ = index.retrieve(words, k=min(PASSAGES, len(passages)), show_progress=False)
        text = "\n\n".join(passages[number] for number in found[0])
        last: Turn = {**question.prompt[-1], "content": f"{text}\n\n{asked}"}
        return replace(question, prompt=(*question.prompt[:-1], last))

    return prompting


def _passages(folder: Path) -> list[str]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in TEXTS and file.is_file())
    if not files:
        raise InputError(f"evaluation.passages: {folder} has no file that ends in {' or '.join(TEXTS)}.")
    if sum(file.stat().st_size for file in files) > MOST_CHARACTERS:
        raise InputError(f"evaluation.passages: {folder} has more than {MOST_CHARACTERS // 1_000_000} MB of text.")
    blocks = [block.strip() for file in files for block in file.read_text("utf-8", "replace").split("\n\n")]
    return [block[:PASSAGE_CHARACTERS] for block in blocks if block]


def _bare(question: Question) -> Question:
    """Without its system message."""
    return replace(question, prompt=tuple(turn for turn in question.prompt if turn["role"] != "system"))


def _assistant(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def told(instructions: str | None, prompting: Prompting) -> Prompting:
    """Tells a model what the task is, in a system message, before what `prompting` puts before a question."""

    def with_instructions(question: Question) -> Question:
        question = prompting(question)
        if instructions is None:
            return question
        opening = [turn for turn in question.prompt if turn["role"] == "system"]
        text = "\n\n".join([str(turn["content"]) for turn in opening] + [instructions])
        rest = question.prompt[len(opening) :]
        return replace(question, prompt=({"role": "system", "content": text}, *rest))

    return with_instructions


def as_it_is(question: Question) -> Question:
    """The question alone."""
    return question


def prompted(prompting: Prompting, questions: Sequence[Question]) -> list[Question]:
    """Each question with what goes before it."""
    return [prompting(question) for question in questions]
