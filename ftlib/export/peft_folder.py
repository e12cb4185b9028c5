"""`--to peft`: the adapter as a folder that PEFT loads, with its base named in a way that others can load it by."""

from __future__ import annotations

import shutil
from pathlib import Path

from ftlib.errors import InputError
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Trained
from ftlib.export.program import InTorch, version_of
from ftlib.export.source import Source
from ftlib.files.atomic import write_json
from ftlib.models.adapter_files import adapter_config
from ftlib.models.adapters.bottleneck import NAME as BOTTLENECK
from ftlib.models.adapters.state import PEFT_CONFIG
from ftlib.models.base import load_tokenizer
from ftlib.registry.agreement import beside_base


class PeftFolder(Format):
    """adapter_config.json, adapter_model.safetensors, and the tokenizer with the chat template of training."""

    def check(self, source: Source, dtype: str | None) -> None:
        """Raises InputError for a whole model, and for an adapter that PEFT alone does not know."""
        if source.kind != "adapter":
            raise InputError(f"{source.owner} is a whole model, and --to peft is for adapters: use --to merged.")
        if adapter_config(source.owner, source.weights).get("peft_type") == BOTTLENECK:
            raise InputError(
                f"{source.owner} is a bottleneck adapter, which ftlib alone loads: PEFT has no such adapter."
            )

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        shutil.copytree(source.weights, folder, dirs_exist_ok=True)
        config = adapter_config(source.owner, folder)
        named = {"base_model_name_or_path": source.base_name, "revision": source.base.revision, "inference_mode": True}
        write_json(folder / PEFT_CONFIG, config | named)

    def program(self, source: Source, folder: Path) -> InTorch:
        """PEFT, on the base that the folder names, loaded as training did."""
        config = adapter_config(source.owner, folder)
        named = {"name_or_path": config["base_model_name_or_path"], "revision": config["revision"], "gguf_file": None}
        base = source.candidate.ready(source.base.model_copy(update=named))
        model = beside_base(base, folder, source.owner)
        tokenizer = load_tokenizer(source.candidate.own(folder), source.candidate.experiment.method.head)
        return InTorch(version_of("peft", "transformers"), folder, model, tokenizer)

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        return Limits(trained.tolerance)


FORMATS = {"peft": PeftFolder()}
