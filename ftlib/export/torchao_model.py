"""`--to int8`, `int4`, `fp8`: the linear layers in fewer bits by torchao, in a folder that transformers loads.

int8 has a scale a row and fp8 (e4m3) too, as torchao's Int8WeightOnlyConfig and Float8WeightOnlyConfig have them; int4
has one a group of 32. Activations stay as they are. Embedding and output stay in the model's own dtype.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from ftlib.config import ModelSection
from ftlib.config.train import Rounding
from ftlib.errors import InputError
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Trained
from ftlib.export.program import InTorch, check_complete, version_of
from ftlib.export.source import Source, check_writes
from ftlib.models.adapters.merge import check_mergeable
from ftlib.models.base import load_tokenizer
from ftlib.models.rounded import torchao_config

LIMITS: dict[Rounding, float] = {"int8": 0.06, "fp8": 0.15, "int4": 0.4}


class TorchaoModel(Format):
    """A model's folder with quantized tensors in safetensors."""

    def __init__(self, name: Rounding) -> None:
        self.name: Rounding = name

    def check(self, source: Source, dtype: str | None) -> None:
        check_writes(source, self.name)
        if source.kind == "adapter":
            check_mergeable(source.weights)
        if importlib.util.find_spec("torchao") is None:
            raise InputError(f"--to {self.name} needs torchao: pip install 'ftlib[quantize]'.")

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        from transformers import TorchAoConfig

        plain = folder / ".merged"
        source.merged(plain)
        config = TorchAoConfig(torchao_config(self.name))
        model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, dtype="auto")
        model.save_pretrained(folder)
        load_tokenizer(ModelSection(name_or_path=str(plain))).save_pretrained(folder)
        shutil.rmtree(plain)

    def program(self, source: Source, folder: Path) -> InTorch:
        """transformers with torchao. Raises FtlibError for a folder that lacks weights."""
        section = ModelSection(name_or_path=str(folder))
        model: Any = source.candidate.ready(section)
        check_complete(model, source.owner)
        return InTorch(version_of("torchao", "transformers"), folder, model, load_tokenizer(section))

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        return Limits(max(LIMITS[self.name], trained.tolerance), rounds=True)


FORMATS = {name: TorchaoModel(name) for name in LIMITS}
