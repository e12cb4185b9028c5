"""The gate before a promotion: is what will be served what was trained, and is it no worse than what is served now?

- The chat template that is saved with the weights is the one that training rendered its rows with.
- The adapter gives the same logits in each way that it can be served (`agreement`), on rows held out from its training.
- Its mean loss on the answers of a given file is no higher than that of the version the name means now (`answer_loss`).

One model is in memory at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ftlib.config import Experiment, ModelSection
from ftlib.errors import DataError, FtlibError
from ftlib.models.base import load_model, load_tokenizer
from ftlib.registry.agreement import Probes, Ways, beside_base, check_finite, free, logits_of, ways_of
from ftlib.registry.answer_loss import Loss, loss_on, read_rows
from ftlib.registry.bases import base_of
from ftlib.registry.profile import prepared_of, turns
from ftlib.registry.version import Version

PROBES = 4  # prompts
PROBE_TOKENS = 96  # of each
NOISE = 1e-6  # of a loss, relative: the order of additions
BUILT_IN = (
    "Write one sentence about the sea.",
    "def add(left, right):\n    return",
    "Die Katze sitzt auf dem Tisch und",
    "1, 2, 3, 4, 5, 6,",
)


@dataclass(frozen=True)
class Comparison:
    """A file, and how much higher than the reference's the loss on it may be: 0.01 is one per cent."""

    file: Path
    slack: float = 0.0


def pass_gate(staged: Version, owner: str, comparison: Comparison | None = None) -> Passed:
    """What was checked and found. `owner` is the name of what is staged in messages.

    Raises FtlibError, with a sentence for a person, for what must not be promoted, and DataError for a file to compare
    on that cannot be read.
    """
    started = time.perf_counter()
    candidate = Candidate(staged, owner)
    found = {"passed": True, "chat_template": candidate.check_template()}
    agreement, loss = candidate.examine(comparison.file if comparison else None)
    return Passed(
        {**found, **agreement, "seconds": round(time.perf_counter() - started, 1)}, candidate, comparison, loss
    )


@dataclass(frozen=True)
class Passed:
    """What passed the gate so far; `found` is for the manifest of the version that it becomes."""

    found: dict[str, Any]
    candidate: Candidate
    comparison: Comparison | None
    loss: Loss | None

    def beside(self, reference: Version | None) -> dict[str, Any]:
        """What was found, and how it compares with the version that the name means (with none, nothing can be worse).

        Raises FtlibError when the comparison's loss is higher than its.
        """
        if self.comparison is None:
            return self.found
        assert self.loss is not None
        return {**self.found, "loss": _compare(self.candidate, self.loss, reference, self.comparison)}


@dataclass(frozen=True)
class Candidate:
    """A version, staged or promoted long ago, with all that is needed to load it."""

    version: Version
    owner: str

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return self.version.manifest

    @cached_property
    def experiment(self) -> Experiment:
        return Experiment.parse(self.manifest["experiment"], f"the manifest of {self.owner}")

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.own(self.version.weights), self.experiment.method.head)

    def check_template(self) -> str:
        """Raises FtlibError when chats would be read otherwise than in training."""
        trained_with, saved = self.manifest.get("chat_template"), self.tokenizer.chat_template
        if trained_with is None:
            return "none in training"
        if (
            not isinstance(saved, str) or saved.splitlines() != trained_with.splitlines()
        ):  # a file's line ends may change
            raise FtlibError(
                f"{self.owner}: the chat template that is saved with its weights is not the one that training used, so "
                "chats would be read otherwise: put the manifest's chat_template into chat_template.jinja beside them."
            )
        return "as in training"

    def examine(self, file: Path | None) -> tuple[dict[str, Any], Loss | None]:
        """What of its logits could be checked, and its loss on a file. A whole model has nothing to be compared with:
        it can be read back, and computes numbers."""
        probes, source = self.probes()
        losses = []

        def measure(model: Any) -> None:
            if file is not None:
                losses.append(self.loss(model, file))

        if self.version.kind == "adapter":
            found = self._ways(probes, measure).agree(self.owner)
        else:
            model = self.load()
            check_finite(logits_of(model, probes), self.owner)
            found = {"dtype": str(model.dtype).removeprefix("torch."), "reloaded": "finite logits"}
            measure(model)
            del model
        free()
        return {"probes": f"{len(probes)} {source}", **found}, losses[0] if losses else None

    def _ways(self, probes: Probes, measure: Callable[[Any], None]) -> Ways:
        """All ways of an adapter; where the merged model lies beside it already, that is read back."""
        merged = self.version.path / "model"
        load_merged = (lambda: self.ready(self.own(merged))) if merged.is_dir() else None
        section = self.experiment.model
        return ways_of(self.version.weights, self.load, section, probes, self.owner, measure, load_merged)

    def loss(self, model: Any, file: Path, as_of: Experiment | None = None) -> Loss:
        """The loss of its loaded model on a file, read as an evaluation file of `as_of` (its own experiment)."""
        data = read_rows(file, as_of or self.experiment, self.tokenizer)
        return loss_on(data, model, self.manifest.get("labels") or (), self.owner)

    def loss_like(self, other: Candidate, file: Path) -> Loss:
        """Its loss on a file that is read as another candidate reads it: the same columns, the same length."""
        model = self.load()
        if self.version.kind == "adapter":
            model = beside_base(model, self.version.weights, self.owner)
        try:
            return self.loss(model, file, other.experiment)
        finally:
            del model
            free()

    def load(self) -> Any:
        """The whole model, or the base of an adapter."""
        adapter = self.version.kind == "adapter"
        return self.ready(base_of(self.manifest, self.owner) if adapter else self.own(self.version.weights))

    def ready(self, section: ModelSection) -> Any:
        """The model that a section names, frozen, where it computes fastest."""
        model: Any = load_model(section, self.experiment.method.head, self.manifest.get("labels") or ())
        model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id  # where a classifier finds the end
        if torch.cuda.is_available() and not getattr(model, "is_quantized", False):  # one that is refuses to be moved
            model = model.to("cuda")
        return model.eval().requires_grad_(False)

    def own(self, folder: Path) -> ModelSection:
        """What is saved in the version itself, read as its experiment reads a model."""
        kept = self.experiment.model.model_dump(include={"dtype", "attn_implementation", "trust_remote_code"})
        return ModelSection.model_validate({"name_or_path": str(folder), **kept})

    def probes(self) -> tuple[Probes, str]:
        """Held-out rows of the run's own data, or built-in texts where that is gone, or has none."""
        data = None
        with suppress(DataError):
            data = prepared_of(self.manifest)
        held_out = data.held_out if data is not None else None
        if data is None or held_out is None:
            return [self.tokenizer(text)["input_ids"] for text in BUILT_IN], "built-in texts"
        rows = held_out.select(range(min(PROBES, len(held_out))))
        found = [prompt + answer for prompt, answer in turns(rows, data.report.rows, self.tokenizer)]
        return [ids[:PROBE_TOKENS] for ids in found[:PROBES]], "evaluation rows"


def _compare(new: Candidate, loss: Loss, reference: Version | None, comparison: Comparison) -> dict[str, Any]:
    """Raises FtlibError, naming both losses, when the new one is higher than the old one and the slack."""
    found = {
        "file": str(comparison.file.absolute()),
        "slack": comparison.slack,
        "new": loss.total / loss.counted,
        "reference": None,
    }
    if reference is None:
        return found
    old = Candidate(reference, reference.id)
    if old.experiment.method.head != new.experiment.method.head:
        raise FtlibError(
            f"{new.owner} and {reference.id} do different things, which no loss compares: choose another name."
        )
    before = old.loss_like(new, comparison.file)
    if before.rows != loss.rows:
        raise FtlibError(
            f"{comparison.file} gives {loss.rows} answers to {new.owner} and {before.rows} to {reference.id}, whose "
            "tokenizer "
            "is another: leave out the rows that are longer than data.max_length."
        )
    ours, theirs = loss.beside(before)
    if ours > theirs * (1 + comparison.slack) + NOISE * abs(theirs):
        allowed = f" (with --slack {comparison.slack:g})" if comparison.slack else ""
        raise FtlibError(
            f"{new.owner} is worse than {reference.id} on {comparison.file}: its loss is {ours:.4f}, and "
            f"{reference.id} has "
            f"{theirs:.4f}{allowed}. It was not promoted; --slack allows a higher loss."
        )
    return {**found, "reference": reference.id, "new": ours, "old": theirs}
