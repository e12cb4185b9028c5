"""A teacher that is loaded in this process: a folder, or a name on the Hub. It writes as models do in an
evaluation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from ftlib.config.recipe.teacher import TeacherSection
from ftlib.curate.teachers.request import Answered, Reply, Request
from ftlib.errors import ConfigError

TOGETHER = 16  # requests; a kill costs so many


class Loaded:
    """Answers of a model. It is loaded when it is asked first: what is kept already needs no model."""

    lot, at_once = TOGETHER, 1

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, Lock()
        self._model: Any = None
        self._tokenizer: Any = None

    @property
    def identity(self) -> str:
        """What its answers depend on, besides the request: its weights, or its name on the Hub."""
        return _identity(self._name)

    def ask(self, requests: Sequence[Request]) -> list[Answered]:
        """The answers. Raises ConfigError for a model that is not there, or that cannot write here."""
        from ftlib.evaluation.answers import Writer, decoder_of, ends_of
        from ftlib.evaluation.task import Question

        with self._lock:
            self._load()
            writer = Writer(self._tokenizer, self._tokenizer.chat_template, max(one.max_tokens for one in requests))
            rows = writer.rows([Question(request.messages, "") for request in requests])
            for row, request in zip(rows, requests, strict=True):
                row.draft, row.most = [], request.max_tokens
                row.temperature, row.seed = request.temperature, request.seed
            began, ends = time.perf_counter(), ends_of(self._model, self._tokenizer)
            decoder_of(self._model, writer, ends).write(rows)
            told = writer.answers(rows, ends, time.perf_counter() - began)
        return [
            Reply(answer.text, "", len(row.prompt), len(row.written), not row.written or row.written[-1] not in ends)
            for row, answer in zip(rows, told, strict=True)
        ]

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch

        from ftlib.config import ModelSection
        from ftlib.evaluation.answers import why_not_drafted
        from ftlib.models.base import load_model, load_tokenizer

        section = ModelSection(name_or_path=self._name)
        try:
            tokenizer, model = load_tokenizer(section), load_model(section)
        except ConfigError as error:
            raise ConfigError(str(error).replace("model.name_or_path", "teacher")) from None
        if why := why_not_drafted(model):
            raise ConfigError(f"teacher: {self._name} does not write here: {why}. Serve it, and name the URL.")
        self._tokenizer = tokenizer
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


@lru_cache(maxsize=16)
def _identity(name: str) -> str:
    folder = Path(name).expanduser()
    if not folder.exists():
        return name
    from ftlib.models.base import fingerprint

    return fingerprint(folder)


@lru_cache(maxsize=2)
def _loaded(name: str) -> Loaded:
    return Loaded(name)


def loaded(section: TeacherSection) -> Loaded:
    """The teacher of this process for a section."""
    return _loaded(section.model)
