"""`--to merged`: one plain model in safetensors, which transformers and everything built on it loads."""

from __future__ import annotations

from pathlib import Path

import torch

from ftlib.config import ModelSection
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Trained
from ftlib.export.program import InTorch, check_complete, version_of
from ftlib.export.source import Source
from ftlib.models.adapters.merge import check_mergeable
from ftlib.models.base import load_tokenizer
from ftlib.registry.agreement import TOLERANCE

DTYPES = (None, "float32", "bfloat16", "float16")


class Merged(Format):
    """base + adapter, added up once."""

    dtypes = DTYPES

    def check(self, source: Source, dtype: str | None) -> None:
        if source.kind == "adapter":
            check_mergeable(source.weights)

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        source.merged(folder, dtype)

    def program(self, source: Source, folder: Path) -> InTorch:
        """transformers. Raises FtlibError for a folder that lacks weights."""
        trust = source.candidate.experiment.model.trust_remote_code
        section = ModelSection(name_or_path=str(folder), trust_remote_code=trust)
        model = source.candidate.ready(section)
        check_complete(model, str(source.owner))
        tokenizer = load_tokenizer(section, source.candidate.experiment.method.head)
        return InTorch(version_of("transformers"), folder, model, tokenizer)

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        """The coarser of the two dtypes, that of training and that of the file."""
        return Limits(max(trained.tolerance, 0.0 if dtype is None else TOLERANCE[getattr(torch, dtype)]))


FORMATS = {"merged": Merged()}
