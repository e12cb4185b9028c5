"""Who does tasks: a base, alone or with a good prompt, a trial, a version of the registry, a model behind a URL."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ftlib.config import DataSection, EvaluationSection, Experiment, ModelSection, TaskSection
from ftlib.config.evaluation import is_served
from ftlib.errors import FtlibError, InputError, nearest
from ftlib.evaluation.chat_url import ChatUrl, NoReply
from ftlib.evaluation.loaded import Loaded
from ftlib.evaluation.prompting import as_it_is, few_shot, rag, told
from ftlib.evaluation.results import Contender
from ftlib.evaluation.task import Answer, Question
from ftlib.files.url_keys import host_of, key_for
from ftlib.files.urls import is_url
from ftlib.models.base import base_of, load_config, load_model, load_tokenizer
from ftlib.models.rounded import round_weights
from ftlib.registry import registry
from ftlib.registry.agreement import beside_base
from ftlib.registry.bases import REGISTRY
from ftlib.registry.version import Version
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import RESOLVED, TRIALS
from ftlib.run.leaderboard import leaderboard

WINNER = "winner"
ASKED_AT_ONCE = 8  # requests to a URL
KEY_ENV = "evaluation.key_env"


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
        if is_served(name):
            return at_url(name, section.key_env, KEY_ENV)
        return self.version(name) if name.startswith(REGISTRY) else self.folder(name)

    def of_trial(self, trial: Trial, name: str = WINNER) -> Contender:
        """The weights that a trial has left."""
        what = f"trial {trial.id}"
        return self._weights(weights_of(trial), trial.manifest, what).contender(name, what)

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
            return Loaded(_as_trained(ready(load_model(own)), manifest), tokenizer, template)
        there = self._base.model if self._base is not None and base == self.model else None
        self._forget()  # an adapter changes its base in place
        beside = ready(beside_base(there or load_model(base), weights, owner))
        return Loaded(_as_trained(beside, manifest), tokenizer, template)

    def _loaded(self, section: ModelSection) -> Loaded:
        tokenizer = load_tokenizer(section)
        return Loaded(ready(load_model(section)), tokenizer, tokenizer.chat_template or self.template)

    def _forget(self) -> None:
        self._base = None
        gc.collect()


def at_url(name: str, keys: Mapping[str, str], named: str = "--key-env") -> Contender:
    """A model behind an OpenAI-compatible URL: https://HOST/v1#MODEL. `keys` are hosts, and the variable with the key
    of each; others have what `key_for` gives them. `named` is what messages call the setting of these variables.

    Raises InputError for a URL that names no model, and ConfigError as `key_for`.
    """
    url, _, model = name.partition("#")
    if not model:
        raise InputError(f"{url}: name the model that is asked there: {url}#MODEL.")
    key = key_for(url, {host.lower(): variable for host, variable in keys.items()}.get(host_of(url)), named)

    def answer(task: TaskSection, questions: Sequence[Question]) -> list[Answer]:
        chat = ChatUrl(url, model, key, task.max_new_tokens)
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
        for task in section.tasks:
            few_shot(task, experiment.data, section.few_shot, section.seed)
    elif name == "rag":
        rag(Path(str(section.passages)))
    elif is_served(name):
        at_url(name, section.key_env, KEY_ENV)
    elif name.startswith(REGISTRY):
        registry.resolve(name.removeprefix(REGISTRY))
    elif name != "base" and ("/" not in name or is_url(name)) and not Path(name).exists():
        known = ("base", "few_shot", "rag", "registry:NAME", "https://HOST/v1#MODEL")
        raise InputError(
            f"evaluation.against: '{name}' is none of {', '.join(known)}, and no folder.{nearest(name, known)}"
        )


def maker(name: str, made: Contenders, keys: Mapping[str, str]) -> Callable[[], Contender]:
    """What makes a contender of a MODEL of the command line; `keys` as `at_url` takes them. Raises InputError for a
    model that is not there."""
    if is_served(name):
        served = at_url(name, keys)
        return lambda: served
    if name.startswith(REGISTRY):
        registry.resolve(name.removeprefix(REGISTRY))
        return lambda: made.version(name)
    trial = trial_of(Path(name))
    if trial is not None:
        weights_of(trial)
        return lambda: made.of_trial(trial, name)
    _check_base(name, made.model)
    return lambda: made.folder(name)


def is_base(name: str) -> bool:
    """Whether a MODEL of the command line is a base: it has learned no task, so examples may help it."""
    return not is_served(name) and not name.startswith(REGISTRY) and trial_of(Path(name)) is None


def _check_base(name: str, model: ModelSection) -> None:
    if Path(name).is_file() and not name.endswith(".gguf"):
        raise InputError(f"MODEL '{name}' is a file, and no model. The file of questions comes last.")
    try:
        load_config(model)
    except InputError as error:
        raise InputError(str(error).replace("model.name_or_path", "MODEL")) from None


def trial_of(path: Path) -> Trial | None:
    """The trial that a path means: RUN/trials/ID, or the best of a run; None for what is no run. Raises InputError for
    a trial that is not there, and for a run without a best one."""
    if path.parent.name == TRIALS and (path.parents[1] / RESOLVED).is_file():
        run = Run(path.parents[1])
        if not path.is_dir():
            raise InputError(f"{run.path} has no trial '{path.name}'.{nearest(path.name, _ids(run))}")
        return run.trial(path.name)
    if not (path / RESOLVED).is_file():
        return None
    best = leaderboard(Run(path)).best
    if best is None:
        raise InputError(f"{path} has no trial with an evaluation yet.")
    return Run(path).trial(best.trial)


def _ids(run: Run) -> list[str]:
    return [trial.id for trial in run.trials()]


def weights_of(trial: Trial) -> Path:
    """The folder of a trial's best weights. Raises InputError where it has none."""
    if trial.weights is None:
        raise InputError(f"trial {trial.id} of {trial.path.parents[1].name} has left no weights.")
    return trial.weights


def _as_trained(model: Any, manifest: Mapping[str, Any]) -> Any:
    """With rounded weights where it was trained with them (`train.qat`)."""
    qat = (manifest["experiment"].get("train") or {}).get("qat")
    if qat is not None:
        round_weights(model, qat)
    return model


def ready(model: Any) -> Any:
    """A loaded model as it answers: on the GPU where there is one, nothing of it trained."""
    if torch.cuda.is_available() and not getattr(model, "is_quantized", False):
        model = model.to("cuda")
    return model.eval().requires_grad_(False)
