"""A model in memory as somebody who does tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftlib.config import TaskSection
from ftlib.evaluation.answers import Writer, answers
from ftlib.evaluation.prompting import Prompting, prompted
from ftlib.evaluation.results import Contender
from ftlib.evaluation.task import Answer, Question


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, and the chat template that its prompts are written with."""

    model: Any
    tokenizer: Any
    template: str | None

    def contender(self, name: str, what: str, prompting: Callable[[TaskSection], Prompting] | None = None) -> Contender:
        """It as somebody who does tasks, with what goes before each question of a task."""

        def answer(task: TaskSection, questions: Sequence[Question]) -> list[Answer]:
            writer = writer_of(task, self.tokenizer, self.template)
            if prompting is None:
                return answers(self.model, writer, questions)
            asked = prompted(prompting(task), questions)
            found = answers(self.model, writer, asked)
            return [replace(one, sent=question.prompt) for one, question in zip(found, asked, strict=True)]

        return Contender(name, what, answer, self.model, self.tokenizer)


def writer_of(task: TaskSection, tokenizer: Any, template: str | None) -> Writer:
    """What makes a task's questions rows of tokens, and text of the tokens that are written."""
    scores = any(metric.type == "perplexity" for metric in task.metrics)
    return Writer(tokenizer, template, task.max_new_tokens, scores)
