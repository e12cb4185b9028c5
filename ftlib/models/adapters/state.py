"""What a training adapter is beyond the weights that PEFT writes.

Three adapters know more than their file says: AdaLoRA has a rank budget in progress, a prompt encoder computes the
embeddings that alone are written, and LoRA that starts from the base's own matrices (PiSSA, OLoRA, CorDA) has moved a
part of the base. A checkpoint holds the first two, so that a resume goes on exactly; what is published is an adapter
for the base as everybody has it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftlib.config import AdapterSection
from ftlib.errors import TrialError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json

STATE_FILE = "adapter_state.safetensors"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def digest(model: Any) -> str:
    """sha256 of what is trained, on this rank: equal before and after means that nothing was learned."""
    found = hashlib.sha256()
    for part in model.parameters():
        if part.requires_grad:
            part = part.to_local() if hasattr(part, "to_local") else part
            found.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def state_callbacks(adapter: AdapterSection | None, model: Any, checkpoint: Path | None) -> list[TrainerCallback]:
    """What must listen to the training of this adapter. Add them before whoever moves the checkpoint away."""
    if adapter is None:
        return []
    if adapter.type == "adalora":
        return [RankBudget(model, checkpoint)]
    if _is_encoded(adapter):
        return [PromptEncoder(model, checkpoint)]
    return []


class _State(TrainerCallback):
    """Tensors that go into each checkpoint, and come back from the one that training begins at."""

    def __init__(self, model: Any, checkpoint: Path | None) -> None:
        self.model, self.checkpoint = model, checkpoint

    def tensors(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        raise NotImplementedError

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step and self.checkpoint is not None:
            self.restore(load_file(self.checkpoint / STATE_FILE))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors().items()}
            save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE_FILE)


class RankBudget(_State):
    """AdaLoRA's budget: told after each step, kept in checkpoints, and left out of PEFT's file.

    PEFT cuts the saved matrices to the ranks of the last allocation. Between allocations, and to go on training, the
    whole matrices are needed (a rank that was cut can come back): they are saved whole, cut ranks being zeros.
    """

    KINDS = ("ipt", "exp_avg_ipt", "exp_avg_unc")

    def __init__(self, model: Any, checkpoint: Path | None) -> None:
        super().__init__(model, checkpoint)
        self.config = model.peft_config["default"]
        self.pattern: dict[str, list[bool]] | None = None
        weight = self.config.orth_reg_weight

        def regularize_training_only(module: Any, inputs: Any) -> None:
            """An eval_loss with AdaLoRA's regularization in it could not be compared with another adapter's."""
            self.config.orth_reg_weight = weight if module.training else 0.0

        model.base_model.register_forward_pre_hook(regularize_training_only)

    @property
    def allocator(self) -> Any:
        return self.model.base_model.rankallocator

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.config.total_step = state.max_steps
        if self.config.tinit + self.config.tfinal >= state.max_steps:
            raise TrialError(
                f"adapter.tinit ({self.config.tinit}) and adapter.tfinal ({self.config.tfinal}) leave none of the "
                f"{state.max_steps} steps to lower the rank in: lower them or train for longer."
            )
        super().on_train_begin(args, state, control)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the optimizer, before the gradients go, as PEFT asks; steps count from one."""
        self.config.rank_pattern = self.pattern
        self.model.base_model.update_and_allocate(state.global_step + 1)
        self.pattern, self.config.rank_pattern = self.config.rank_pattern, None

    def tensors(self) -> dict[str, torch.Tensor]:
        held = {f"{kind}|{name}": part for kind in self.KINDS for name, part in getattr(self.allocator, kind).items()}
        return held | {f"pattern|{name}": torch.tensor(ranks) for name, ranks in (self.pattern or {}).items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        split = [(*key.split("|", 1), tensor) for key, tensor in tensors.items()]
        for kind in self.KINDS:
            setattr(self.allocator, kind, {name: part.to(self._device()) for of, name, part in split if of == kind})
        self.pattern = {name: part.tolist() for of, name, part in split if of == "pattern"} or None

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


class PromptEncoder(_State):
    """The encoder behind the virtual tokens: PEFT's file has only what it computes."""

    def __init__(self, model: Any, checkpoint: Path | None) -> None:
        super().__init__(model, checkpoint)
        self.encoder = model.prompt_encoder["default"]
        # The trainer would load what the encoder computes as if it were the encoder; `restore` does it right.
        self.encoder._load_adapter_state_dict = lambda state_dict: None

    def tensors(self) -> dict[str, torch.Tensor]:
        held: dict[str, torch.Tensor] = self.encoder.state_dict()
        return held

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self.encoder.load_state_dict(tensors)


def remember_start(model: PeftModel) -> None:
    """Keeps the adapter's first weights beside the model: what was moved out of the base into it."""
    held = get_peft_model_state_dict(model)
    model.first_weights = {name: part.detach().cpu().clone() for name, part in held.items() if ".lora_" in name}


def can_be_read_back(adapter: AdapterSection | None) -> bool:
    """Whether the weights that a trial keeps go back into the model that it trains. Some are written as others: the
    embeddings that a prompt encoder computes, and an adapter for the untouched base."""
    if adapter is None:
        return True
    return not (_is_encoded(adapter) or (adapter.type == "lora" and adapter.moves_base))


def _is_encoded(adapter: AdapterSection) -> bool:
    return adapter.type == "p_tuning" or (adapter.type == "prefix" and adapter.prefix_projection)


def publish_as_plain(model: Any, folder: Path) -> None:
    """Rewrites the LoRA adapter in `folder` so that any PEFT loads it on the untouched base.

    base + BA = (base - B0 A0) + BA + B0 A0, so an adapter that moved B0 A0 out of its base is, for the untouched base,
    [B, -B0] [A; A0] of twice the rank (the conversion of PEFT's own PiSSA guide). How it began is nothing to whoever
    loads it, and PEFT would begin again: the config says `init_lora_weights: true`.
    """
    config = read_json(folder / PEFT_CONFIG) if (folder / PEFT_CONFIG).is_file() else {}
    if config.get("peft_type") != "LORA" or config["init_lora_weights"] is True:
        return
    first = getattr(model, "first_weights", {})
    if first:
        weights = load_file(folder / PEFT_WEIGHTS)
        for name, start in first.items():
            start = start.to(weights[name].dtype)
            a_matrix = ".lora_A." in name
            weights[name] = torch.cat([weights[name], start if a_matrix else -start], dim=0 if a_matrix else 1)
        (folder / PEFT_WEIGHTS).unlink()  # a hard link of the checkpoint's
        save_file(weights, folder / PEFT_WEIGHTS, metadata={"format": "pt"})
        alpha = 2**0.5 if config["use_rslora"] else 2  # keeps alpha / r, or alpha / sqrt(r)
        config |= {"r": config["r"] * 2, "lora_alpha": config["lora_alpha"] * alpha}
        config["rank_pattern"] = {name: rank * 2 for name, rank in config["rank_pattern"].items()}
        config["alpha_pattern"] = {name: value * alpha for name, value in config["alpha_pattern"].items()}
    config |= {"init_lora_weights": True, "corda_config": None, "eva_config": None}
    (folder / PEFT_CONFIG).unlink()
    write_json(folder / PEFT_CONFIG, config)
