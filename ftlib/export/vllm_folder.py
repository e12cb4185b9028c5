"""`--to vllm`: a LoRA adapter as vLLM's loader takes it (`vllm serve BASE --enable-lora --lora-modules NAME=FOLDER`).

vLLM reads one scale of the config, lora_alpha / r, for all layers, and no `rank_pattern` or `alpha_pattern`: an adapter
with a scale of its own in a layer would be served with another. Here each layer's scale is in its B, and the config
says 1. What the loader refuses is refused here, before (vllm/lora/peft_helper.py and lora_model.py, v0.11 to v0.33).
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from ftlib.errors import FtlibError, InputError
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Trained
from ftlib.export.peft_folder import PeftFolder
from ftlib.export.program import InTorch
from ftlib.export.source import Source, check_writes
from ftlib.files.atomic import write_json
from ftlib.models.adapter_files import VLLM_MAX_RANK, WEIGHTS, adapter_config, tensors, why_not_banked
from ftlib.models.adapters.state import PEFT_CONFIG
from ftlib.models.base import bare_model
from ftlib.models.lora_bank import PREFIX
from ftlib.models.plain_lora import read_lora


class VllmFolder(Format):
    """The same folder, with one rank and one scale."""

    peft = PeftFolder()

    def check(self, source: Source, dtype: str | None) -> None:
        """Raises InputError for what vLLM has no kernel for."""
        check_writes(source, "vllm")
        if source.kind != "adapter":
            raise InputError(f"{source.owner} is a whole model, which vLLM loads as it is: use --to merged.")
        if (why := why_not_banked(source.owner, source.weights)) is not None:
            raise InputError(f"{source.owner} cannot be loaded by vLLM: {why}. Use --to merged.")

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        self.peft.write(source, folder, dtype)
        lora = read_lora(source.owner, folder).of_one_rank()
        parts = {f"{PREFIX}{name}": tensor for name, tensor in lora.state.items()}
        (folder / WEIGHTS).unlink()
        save_file(parts, folder / WEIGHTS, metadata={"format": "pt"})
        alone = {"rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False, "modules_to_save": None, "bias": "none"}
        targets = sorted({layer.rpartition(".")[2] for layer in lora.ranks})
        named = {"r": lora.rank, "lora_alpha": lora.rank, "target_modules": targets}
        write_json(folder / PEFT_CONFIG, adapter_config(source.owner, folder) | alone | named)

    def program(self, source: Source, folder: Path) -> InTorch:
        """PEFT computes it, once it has passed the rules of vLLM's loader. vLLM itself is not run."""
        check_rules(folder, dict(bare_model(source.base).named_modules()), source.owner)
        ran = self.peft.program(source, folder)
        return InTorch(f"{ran.name}, by the rules of vLLM's loader", folder, ran.model, ran.tokenizer)

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        return Limits(trained.tolerance)


FORMATS = {"vllm": VllmFolder()}


def check_rules(folder: Path, layers: dict[str, nn.Module], owner: str) -> None:
    """What vLLM's loader asks of a folder, of a base with these layers. Raises FtlibError for what it refuses, or
    would read as another adapter."""
    config = adapter_config(owner, folder)
    names = list(tensors(folder / WEIGHTS)[0])
    if config.get("modules_to_save") or config.get("use_dora") or config.get("bias", "none") != "none":
        raise FtlibError(f"{owner}: vLLM refuses modules_to_save, DoRA and biases.")
    if config.get("rank_pattern") or config.get("alpha_pattern") or config.get("use_rslora"):
        raise FtlibError(f"{owner}: vLLM reads one r and one lora_alpha for all layers, and the config has patterns.")
    if not config["r"] <= VLLM_MAX_RANK:
        raise FtlibError(f"{owner} has rank {config['r']}, and vLLM takes at most {VLLM_MAX_RANK}: use --to merged.")
    for name in names:
        layer, _, kind = name.removeprefix(PREFIX).partition(".lora_")
        if not name.startswith(PREFIX) or kind not in ("A.weight", "B.weight"):
            raise FtlibError(f"{owner}: vLLM does not know the tensor {name}.")
        if not isinstance(layers.get(layer), nn.Linear):
            raise FtlibError(f"{owner}: {layer} is no linear layer of the base, and vLLM adapts no other.")
