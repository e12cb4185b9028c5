"""What the trainers of TRL and transformers have no public name for; read at TRL 1.16 and transformers 5.23.

Each class stands before a trainer. It turns private names into public names of ours: a method that a subclass calls, or
one that the trainer calls and a subclass answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from transformers import Trainer


class OpenTrainer:
    """Before a Trainer of transformers, or one of TRL's."""

    def used_columns(self, dataset: Any, description: str | None) -> Any:
        """The columns of a data set that the trainer uses. `description` is "Training" or "Evaluation"."""
        return super()._remove_unused_columns(dataset, description)  # type: ignore[misc]

    def ready(self, inputs: Any) -> Any:
        """A batch as the model takes it, on the model's device. Some trainers write completions here."""
        return super()._prepare_inputs(inputs)  # type: ignore[misc]

    def on_device(self, inputs: Any) -> Any:
        """A batch on the model's device, with nothing written."""
        return self._prepare_input(inputs)

    def save_weights(self, output_dir: str | None, state_dict: dict[str, Tensor] | None) -> None:
        """Writes the model's weights into a checkpoint. None is the trainer's own folder, and the model's weights."""
        super()._save(output_dir, state_dict)  # type: ignore[misc]

    def load_weights(self, checkpoint: str, model: Any) -> None:
        """Reads the model's weights from a checkpoint. None is the trainer's own model."""
        super()._load_from_checkpoint(checkpoint, model)  # type: ignore[misc]

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        return self.used_columns(dataset, description)

    def _prepare_inputs(self, inputs: Any) -> Any:
        return self.ready(inputs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        self.save_weights(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_weights(resume_from_checkpoint, model)

    _prepare_input: Any


def read_weights(trainer: Trainer, folder: Path) -> None:
    """Puts weights that a checkpoint or a trial holds into the trainer's own model, and nothing else that is there."""
    from transformers import Trainer  # a second of imports, which packs do not need

    Trainer._load_from_checkpoint(trainer, str(folder))


class OpenPreference:
    """Before TRL's DPOTrainer and KTOTrainer."""

    reference_key: str  # under which TRL keeps the reference's log-probabilities

    def ready_rows(self, dataset: Any, args: Any, name: str) -> Any:
        """The rows of a data set as the trainer takes them. `name` is "train" or "eval"."""
        raise NotImplementedError

    def mismatched_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """KTO's: the log-probabilities of answers to prompts that they do not belong to. [rows]"""
        return self._compute_kl_logps(model, inputs)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        return self.ready_rows(dataset, args, dataset_name)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        self._precompute_model_hash = self.reference_key
        return super()._precompute_ref_logps(dataset, name, batch_size)  # type: ignore[misc]

    _compute_kl_logps: Any


class OpenOnline:
    """Before TRL's GRPOTrainer and RLOOTrainer."""

    def has_rewarded(self, rewards: Tensor) -> None:
        """The trainer calls it with the rewards of a batch: [completions of all workers, reward functions]."""

    @property
    def eval_numbers(self) -> dict[str, list[float]]:
        """The numbers of the running evaluation: one of each batch. The trainer logs their means."""
        numbers: dict[str, list[float]] = self._metrics["eval"]
        return numbers

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)  # type: ignore[misc]
        self.has_rewarded(rewards)
        return rewards

    _metrics: Any


class DistillCard:
    """Before an SFTTrainer of TRL's: the model card that it writes says "Distill"."""

    _name = "Distill"
