"""Kahneman-Tversky optimization on TRL's KTOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from trl import KTOConfig, KTOTrainer

from ftlib.config import KTO, Experiment
from ftlib.data.tokenize import IGNORED
from ftlib.methods.arguments import training_arguments
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.kto import summary
from ftlib.methods.reference import OneReference, reference_of
from ftlib.methods.table import Table

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are already the ids of prompts and answers, and a label."""
    method = experiment.method
    assert isinstance(method, KTO)
    config = KTOConfig(
        **training_arguments(experiment, output_dir),
        max_length=experiment.data.max_length,
        precompute_ref_batch_size=experiment.train.per_device_eval_batch_size,
        **method.model_dump(exclude={"type"}),
    )
    return _KTOTrainer(
        method=method,
        reference=reference_of(experiment, model),
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )


def _add_mismatched(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Each prompt beside its neighbour's answer in the batch, from which KTO estimates the divergence (TRL's rule)."""
    answers = rows["completion_ids"]
    return {**rows, "KL_completion_ids": [answers[-1], *answers[:-1]]}


class _KTOTrainer(OneReference, ByRows, KTOTrainer):
    """TRL's KTOTrainer on rows that are token ids already."""

    def __init__(self, method: KTO, **kwargs: Any) -> None:
        self.method = method
        super().__init__(**kwargs)

    def ready_rows(self, dataset: Any, args: KTOConfig, name: str) -> Any:
        """Adds the mismatched answers. In training, they come from the same batch. In an evaluation, they come from all
        rows, so that they do not depend on the batch size."""
        if not self.calculate_KL:
            return dataset
        size = args.per_device_train_batch_size if name == "train" else len(dataset)
        return dataset.map(_add_mismatched, batched=True, batch_size=size)

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        log_probs = model(**read, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        if self.precompute_ref_logps:
            reference, mismatched_reference = inputs["ref_logps"], inputs.get("ref_KL_logps")
        else:
            reference, mismatched_reference = self.compute_ref_log_probs(self.ref_model or model, inputs)
        policy = log_probs[:, 1 - labels.shape[1] :].sum(1)
        good = torch.as_tensor(inputs["label"], device=policy.device)
        found = {"good": good, "policy": policy, "reference": reference}
        if self.calculate_KL:
            found["mismatched"] = self.mismatched_log_probs(model, inputs) - mismatched_reference
        return found

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.method)
