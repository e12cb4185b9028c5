"""The teacher of a distillation: where it is, what makes it the same teacher, and whether it reads what the student
reads.

A teacher is a model on the Hub, a folder, a version of the registry or a trial of a run; where that is an adapter, it
is put on its base. What it computes once for many trials lies under FTLIB_HOME/cache/teacher, whole or not there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftlib.config import Distill, Experiment, Head, ModelSection
from ftlib.errors import ConfigError
from ftlib.files import computed_once as storage_cache
from ftlib.files.json_files import read_json
from ftlib.models.adapter_files import adapter_config, check_tensors
from ftlib.models.adapters.start import adapter_fingerprint
from ftlib.models.base import fingerprint, load_config, load_model, load_tokenizer
from ftlib.run.directory import Trial
from ftlib.run.layout import MANIFEST

NEEDS_SAME_TOKENIZER = ("logit", "self", "feature", "on_policy", "mutual")
VERSION = 1  # raise it when the same teacher and data come to give another cache


@dataclass(frozen=True)
class Teacher:
    """A teacher that is not loaded yet. `adapter` is a PEFT folder, `model` what it stands on or the teacher itself."""

    model: ModelSection
    adapter: Path | None
    labels: tuple[str, ...]  # a classifier's classes, where they are known by name

    @property
    def name(self) -> str:
        return str(self.adapter or self.model.name_or_path)

    def identity(self) -> dict[str, Any]:
        """What its outputs depend on: fingerprints of folders, the commit of a model on the Hub."""
        folder = Path(self.model.name_or_path)
        with _named():
            revision = None if folder.exists() else load_config(self.model)._commit_hash or self.model.revision
        return {
            "name_or_path": self.name,
            "revision": revision,
            "fingerprint": fingerprint(folder) if folder.exists() else None,
            "adapter_fingerprint": adapter_fingerprint(self.adapter) if self.adapter else None,
        }

    def key(self) -> dict[str, Any]:
        """The identity without the place: the same weights in another folder are the same teacher."""
        identity = self.identity()
        if identity["fingerprint"]:
            identity["name_or_path"] = None
        return {"version": VERSION, "dtype": self.model.dtype, **identity}

    def tokenizer(self) -> PreTrainedTokenizerBase:
        with _named():
            if self.adapter and (self.adapter / "tokenizer_config.json").exists():
                return load_tokenizer(self.model.model_copy(update={"tokenizer": str(self.adapter)}))
            return load_tokenizer(self.model)

    def load(self, head: Head, device: torch.device) -> PreTrainedModel:
        """The whole teacher, frozen, in evaluation mode."""
        with _named(), _unsharded():
            model = load_model(self.model, head, self.labels)
        if self.adapter:
            model = PeftModel.from_pretrained(model, str(self.adapter))
            if self._adapter_config()["peft_type"] == "LORA":
                model = model.merge_and_unload()
        return model.to(device).eval().requires_grad_(False)

    def check(self, head: Head) -> None:
        """Raises ConfigError for an adapter of virtual tokens, whose outputs stand at other positions, and for a
        classifier's teacher that was never taught to classify."""
        if self.adapter and self._adapter_config()["peft_type"] in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"):
            raise ConfigError(
                f"method.teacher: {self.name} is an adapter of virtual tokens, which cannot be compared token by "
                "token: "
                "use a teacher with another adapter, or a whole model."
            )
        if head != "sequence_classification":
            return
        if self.adapter:
            found = self._adapter_config()["task_type"] == "SEQ_CLS"
        else:
            names = load_config(self.model).architectures or []
            found = any(name.endswith("ForSequenceClassification") for name in names)
        if not found:
            raise ConfigError(
                f"method.teacher: {self.name} has no classification head, so it has nothing to teach here: train it "
                "with method.type: classify first."
            )

    def _adapter_config(self) -> dict[str, Any]:
        assert self.adapter is not None
        config: dict[str, Any] = json.loads((self.adapter / "adapter_config.json").read_text())
        return config


def teacher_of(experiment: Experiment) -> Teacher:
    """The teacher that an experiment names. Raises ConfigError where there is none."""
    method = experiment.method
    assert isinstance(method, Distill)
    if method.teacher.startswith("registry:"):  # the command line resolves the key itself, not the space of a sweep
        raise ConfigError(f"method.teacher: '{method.teacher}' cannot be one of a sweep's values: give its folder.")
    folder = _weights(Path(method.teacher).expanduser())
    adapter = folder if (folder / "adapter_config.json").exists() else None
    name = str(folder) if folder.is_dir() else method.teacher
    if adapter:
        check_tensors(adapter)
        name = str(adapter_config(method.teacher, adapter).get("base_model_name_or_path"))
    model = ModelSection(
        name_or_path=name,
        revision=None if adapter else method.teacher_revision,
        dtype=experiment.model.dtype,
        attn_implementation=experiment.model.attn_implementation,
        trust_remote_code=experiment.model.trust_remote_code,
    )
    return Teacher(model, adapter, _labels(folder, model) if method.task == "classify" else ())


def _weights(folder: Path) -> Path:
    """The weights in a trial's folder or in a version's, or the folder itself."""
    if not (folder / MANIFEST).exists():
        return folder
    weights = Trial(folder).weights
    if weights is None:
        raise ConfigError(f"method.teacher: the trial {folder} has saved no weights yet.")
    return weights


def _labels(folder: Path, model: ModelSection) -> tuple[str, ...]:
    """The classes of a classifier, in the order of its logits: from what stands beside its weights, or its config."""
    manifest = read_json(folder.parent / MANIFEST) or {}
    with _named():
        named = load_config(model).id2label
    return tuple(manifest.get("labels") or (named[number] for number in sorted(named)))


def same_tokenizer(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> bool:
    """Whether every id means the same token to both. (Models pad their vocabularies beyond that, each in its way.)"""
    return bool(student.get_vocab() == teacher.get_vocab())


def check_tokenizers(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, method: Distill) -> None:
    """Raises ConfigError where this kind compares token with token and the two do not have the same tokens."""
    if same_tokenizer(student, teacher) or method.kind not in NEEDS_SAME_TOKENIZER:
        return
    if method.task == "classify" and method.kind in (
        "logit",
        "self",
        "mutual",
    ):  # each reads the text in its own tokens
        return
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    token = next(token for token in sorted({*ours, *theirs}) if ours.get(token) != theirs.get(token))
    others = "relation" if method.task == "classify" else "sequence (the teacher writes, any tokenizer) or relation"
    raise ConfigError(
        f"method.teacher: '{method.teacher}' has another tokenizer than the student ({token!r} is "
        f"{_number(theirs.get(token))} there and {_number(ours.get(token))} here), so kind '{method.kind}' would "
        "compare "
        f"different tokens: use kind: {others}, or a teacher of the student's family."
    )


def _number(token_id: int | None) -> str:
    return "no token" if token_id is None else f"token {token_id}"


def cached(parts: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder that holds what `build` makes of `parts`, made once: what a teacher says of a file."""
    return storage_cache.cached("teacher", parts, build)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """An error of the model's loader names the student's key; here it is the teacher's."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.name_or_path", "method.teacher")) from error


@contextlib.contextmanager
def _unsharded() -> Iterator[None]:
    """While ZeRO-3 trains the student, transformers would read a teacher in parts too, which nothing then puts
    together."""
    from transformers.integrations import deepspeed

    reference = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = reference
