"""Who does tasks: a base, alone or with a good prompt, a trial, a version of the registry, a model behind a URL."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ftlib.config import DataSection, EvaluationSection, Experiment, ModelSection, TaskSection
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.evaluation.answers import Writer, answers
from ftlib.evaluation.chat_url import ChatUrl, NoReply
from ftlib.evaluation.prompting import Prompting, as_it_is, few_shot, prompted, rag, told
from ftlib.evaluation.results import Contender
from ftlib.evaluation.task import Answer, Question
from ftlib.files.urls import is_url
from ftlib.models.base import base_of, load_model, load_tokenizer
from ftlib.registry import registry
from ftlib.registry.agreement import beside_base
from ftlib.registry.bases import REGISTRY
from ftlib.registry.version import Version
from ftlib.run.directory import Trial

WINNER = "winner"
ASKED_AT_ONCE = 8  # requests to a URL
KEY = "OPENAI_API_KEY"  # the environment variable with a URL's key


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, and the chat template that its prompts are written with."""

    model: Any
    tokenizer: Any
    template: str | None

    def contender(self, name: str, what: str, prompting: Callable[[TaskSection], Prompting] | None = None) -> Contender:
        """It as somebody who does tasks, with what goes before each question of a task."""

        def answer(task: TaskSection, questions: Sequence[Question]) -> list[Answer]:
            scores = any(metric.type == "perplexity" for metric in task.metrics)
            writer = Writer(self.tokenizer, self.template, task.max_new_tokens, scores)
            before = as_it_is if prompting is None else prompting(task)
            return answers(self.model, writer, prompted(before, questions))

        return Contender(name, what, answer)


class Contenders:
    """Makes contenders, each loaded when its turn comes. One base is in memory at a time.

    `model` is the base of an experiment, `template` the chat template of its training, for a base without its own.
    """

    def __init__(self, data: DataSection, model: ModelSection, template: str | None = None) -> None:
        self.data, self.model, self.template = data, model, template
        self._base: Loaded | None = None

    def named(self, name: str, section: EvaluationSection) -> Contender:
        """One of `evaluation.against`. Raises FtlibError for what cannot be had."""
        base = Path(self.model.name_or_path).name
        if name == "base":
            return self.base().contender(name, base, lambda task: told(task.instructions, as_it_is))
        if name == "few_shot":
            what, count, seed = f"{base}, shown {section.few_shot} training rows", section.few_shot, section.seed
            return self.base().contender(
                name, what, lambda task: told(task.instructions, few_shot(task, self.data, count, seed))
            )
        if name == "rag":
            found = rag(Path(str(section.passages)))
            what = f"{base}, given passages of {section.passages}"
            return self.base().contender(name, what, lambda task: told(task.instructions, found))
        return self.version(name) if name.startswith(REGISTRY) else self.folder(name)

    def of_trial(self, trial: Trial, name: str = WINNER) -> Contender:
        """The weights that a trial has left."""
        weights = trial.weights
        if weights is None:
            raise InputError(f"trial {trial.id} of {trial.path.parents[1].name} has left no weights.")
        return self._weights(weights, trial.manifest, f"trial {trial.id}").contender(name, f"trial {trial.id}")

    def of_copy(self, staged: Version, what: str) -> Contender:
        """A trial's weights as they are about to be promoted."""
        return self._weights(staged.weights, staged.manifest, what).contender(WINNER, what)

    def version(self, name: str) -> Contender:
        """A version of the registry: registry:NAME or registry:NAME@N."""
        version = registry.resolve(name.removeprefix(REGISTRY))
        registry.check_loadable(version)
        return self._weights(version.weights, version.manifest, version.id).contender(name, version.id)

    def folder(self, name: str) -> Contender:
        """A whole model by its folder, or by its name on the Hub."""
        self._forget()
        section = ModelSection(name_or_path=name, trust_remote_code=self.model.trust_remote_code)
        return self._loaded(section).contender(name, Path(name).name)

    def base(self) -> Loaded:
        """The base of the experiment, with its own chat template where it has one."""
        if self._base is None:
            self._base = self._loaded(self.model)
        return self._base

    def _weights(self, weights: Path, manifest: dict[str, Any], owner: str) -> Loaded:
        base, saved = base_of(manifest, owner), ModelSection(name_or_path=str(weights))
        tokenizer, template = load_tokenizer(saved), manifest.get("chat_template")
        if weights.name == "model":
            self._forget()
            own = base.model_copy(update={"name_or_path": str(weights), "gguf_file": None, "revision": None})
            return Loaded(_ready(load_model(own)), tokenizer, template)
        there = self._base.model if self._base is not None and base == self.model else None
        self._forget()  # an adapter changes its base in place
        return Loaded(_ready(beside_base(there or load_model(base), weights, owner)), tokenizer, template)

    def _loaded(self, section: ModelSection) -> Loaded:
        tokenizer = load_tokenizer(section)
        return Loaded(_ready(load_model(section)), tokenizer, tokenizer.chat_template or self.template)

    def _forget(self) -> None:
        self._base = None
        gc.collect()


def at_url(name: str) -> Contender:
    """A model behind an OpenAI-compatible URL: https://HOST/v1#MODEL. Its key is in OPENAI_API_KEY.

    Raises InputError for a URL that names no model.
    """
    url, _, model = name.partition("#")
    if not model:
        raise InputError(f"{url}: name the model that is asked there: {url}#MODEL.")

    def answer(task: TaskSection, questions: Sequence[Question]) -> list[Answer]:
        chat = ChatUrl(url, model, os.environ.get(KEY), task.max_new_tokens)
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            try:
                return list(pool.map(lambda question: chat.answer(list(question.prompt)), questions))
            except NoReply as error:
                raise FtlibError(f"{model} does not answer: {error}.") from None

    return Contender(name, f"{model} at {url}", answer)


def check_named(name: str, experiment: Experiment) -> None:
    """Raises InputError or DataError for somebody in `evaluation.against` who cannot be had."""
    section = experiment.evaluation
    if name == "few_shot":
        few_shot(section.tasks[0], experiment.data, section.few_shot, section.seed)
    elif name == "rag":
        rag(Path(str(section.passages)))
    elif name.startswith(REGISTRY):
        registry.resolve(name.removeprefix(REGISTRY))
    elif name != "base" and "/" not in name and not Path(name).exists():
        known = ("base", "few_shot", "rag", "registry:NAME")
        raise InputError(
            f"evaluation.against: '{name}' is none of {', '.join(known)}, and no folder.{nearest(name, known)}"
        )


def is_served(name: str) -> bool:
    """Whether a name is that of a model behind a URL."""
    return is_url(name) and name.startswith(("http://", "https://"))


def _ready(model: Any) -> Any:
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        model = model.to("cuda")
    return model.eval().requires_grad_(False)
