"""Programs that run artifacts: transformers, PEFT, llama.cpp, onnxruntime. Each computes logits, and reads text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ftlib.errors import FtlibError
from ftlib.evaluation.answers import ends_of
from ftlib.evaluation.loaded import Loaded
from ftlib.evaluation.results import Contender
from ftlib.export.gate import Reading
from ftlib.export.layers import Layers, layers_of
from ftlib.export.source import tied, tokens_of
from ftlib.models.adapter_files import tensors
from ftlib.registry.agreement import Logits, Probes, logits_of


class Program(Protocol):
    """What runs an artifact. `name` is for a person: the program and its version."""

    @property
    def name(self) -> str: ...

    def logits(self, probes: Probes) -> Logits:
        """At the last positions of each probe, as `agreement.logits_of`."""
        ...

    def reading(self, texts: Sequence[str]) -> Reading:
        """How it reads text."""
        ...

    def layers(self, names: Iterable[str]) -> Layers | None:
        """What these linear layers of the artifact make of one vector, as `layers.layers_of`; None where nobody can
        see."""
        ...

    def contender(self, name: str) -> Contender | None:
        """It as somebody who does tasks; None for a program that does none."""
        ...


@dataclass(frozen=True)
class InTorch:
    """A model of transformers, or of PEFT, in this process. `folder` holds the artifact."""

    name: str
    folder: Path
    model: Any
    tokenizer: Any

    def logits(self, probes: Probes) -> Logits:
        return logits_of(self.model, probes)

    def reading(self, texts: Sequence[str]) -> Reading:
        ends = ends_of(self.model, self.tokenizer)
        return Reading(self.tokenizer.chat_template, tokens_of(self.tokenizer, list(texts)), ends, self._tied())

    def layers(self, names: Iterable[str]) -> Layers:
        found: Layers = layers_of(self.model)
        return found

    def contender(self, name: str) -> Contender | None:
        return Loaded(self.model, self.tokenizer, self.tokenizer.chat_template).contender(name, self.name)

    def _tied(self) -> bool | None:
        """A file with an output of its own unties what its config ties, for programs that read the file alone."""
        names = {name for file in self.folder.glob("model*.safetensors") for name in tensors(file)[0]}
        found = tied(self.model)
        return False if found and "lm_head.weight" in names else found


def check_complete(model: Any, owner: str) -> None:
    """Raises FtlibError for a model some of whose weights were not in the files: transformers draws them at random."""
    drawn = sorted(getattr(model, "drawn", ()))
    if drawn:
        raise FtlibError(f"{owner} lacks {len(drawn)} weights, such as {drawn[0]}.")


def version_of(*packages: str) -> str:
    """Packages with their versions, for a person."""
    from importlib.metadata import version

    return ", ".join(f"{package} {version(package)}" for package in packages)
