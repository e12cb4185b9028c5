"""Who does the tasks: the base, the base with a good prompt, the winner, versions of the registry, models elsewhere."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ftlib.config import EvaluationSection, Experiment, ModelSection, TaskSection
from ftlib.errors import InputError, nearest
from ftlib.evaluation.answers import Writer, answers
from ftlib.evaluation.prompting import Prompting, as_it_is, few_shot, prompted, rag
from ftlib.evaluation.results import Contender
from ftlib.evaluation.task import Answer, Question
from ftlib.models.base import base_of, load_model, load_tokenizer
from ftlib.registry import registry
from ftlib.registry.agreement import beside_base
from ftlib.registry.bases import REGISTRY
from ftlib.run.directory import Run

WINNER = "winner"


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
    """Those that an experiment names, each loaded when its turn comes; one base is in memory at a time."""

    def __init__(self, experiment: Experiment, template: str | None = None) -> None:
        self.experiment, self.template = experiment, template
        self._base: Loaded | None = None

    def against(self, section: EvaluationSection) -> Iterator[Callable[[], Contender]]:
        """Those of `evaluation.against`, in its order."""
        for name in section.against:
            yield lambda name=name: self.named(name, section)  # type: ignore[misc]

    def named(self, name: str, section: EvaluationSection) -> Contender:
        """One of `evaluation.against`. Raises FtlibError for what cannot be had."""
        data, base = self.experiment.data, Path(self.experiment.model.name_or_path).name
        if name == "base":
            return self.base().contender(name, base)
        if name == "few_shot":
            what = f"{base}, shown {section.few_shot} training rows"
            return self.base().contender(name, what, lambda task: few_shot(task, data, section.few_shot, section.seed))
        if name == "rag":
            found = rag(Path(str(section.passages)))
            return self.base().contender(name, f"{base}, given passages of {section.passages}", lambda task: found)
        if name.startswith(REGISTRY):
            return self.version(name)
        return self.folder(name)

    def winner(self, run: Run, trial: str) -> Contender:
        """The weights that a trial has left."""
        weights = run.trial(trial).weights
        if weights is None:
            raise InputError(f"trial {trial} of {run.name} has left no weights.")
        return self._weights(weights, run.trial(trial).manifest, f"trial {trial}").contender(WINNER, f"trial {trial}")

    def version(self, name: str) -> Contender:
        """A version of the registry: registry:NAME or registry:NAME@N."""
        version = registry.resolve(name.removeprefix(REGISTRY))
        registry.check_loadable(version)
        return self._weights(version.weights, version.manifest, version.id).contender(name, version.id)

    def folder(self, name: str) -> Contender:
        """A whole model by its folder, or by its name on the Hub."""
        self._forget()
        section = self.experiment.model.model_copy(update={"name_or_path": name, "gguf_file": None, "revision": None})
        return self._loaded(section, self.template).contender(name, Path(name).name)

    def base(self) -> Loaded:
        """The base of the experiment, with its own chat template where it has one."""
        if self._base is None:
            self._base = self._loaded(self.experiment.model, self.template)
        return self._base

    def _weights(self, weights: Path, manifest: dict[str, Any], owner: str) -> Loaded:
        section = base_of(manifest, owner)
        tokenizer = load_tokenizer(self.experiment.model.model_copy(
            update={"name_or_path": str(weights), "gguf_file": None, "revision": None, "tokenizer": None}
        ))  # fmt: skip
        template = manifest.get("chat_template")
        if manifest.get("kind") == "model" or weights.name == "model":
            self._forget()
            own = section.model_copy(update={"name_or_path": str(weights), "gguf_file": None, "revision": None})
            return Loaded(_ready(load_model(own)), tokenizer, template)
        base = self.base().model if section == self.experiment.model else None
        self._forget()  # an adapter changes its base in place
        return Loaded(_ready(beside_base(base if base is not None else load_model(section), weights, owner)), tokenizer,
                      template)  # fmt: skip

    def _loaded(self, section: ModelSection, template: str | None) -> Loaded:
        tokenizer = load_tokenizer(section)
        return Loaded(_ready(load_model(section)), tokenizer, tokenizer.chat_template or template)

    def _forget(self) -> None:
        self._base = None
        gc.collect()


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


def _ready(model: Any) -> Any:
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        model = model.to("cuda")
    return model.eval().requires_grad_(False)
