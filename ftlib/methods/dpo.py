"""Direct preference optimization and its relatives on TRL's DPOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import DPOConfig, DPOTrainer

from ftlib.config import DPO, Experiment
from ftlib.data.tokenize import IGNORED
from ftlib.methods.arguments import training_arguments
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.dpo import summary
from ftlib.methods.reference import OneReference, reference_of
from ftlib.methods.table import Table

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """A trainer over `data`, whose rows are already the ids of prompts and of chosen and rejected answers."""
    method = experiment.method
    assert isinstance(method, DPO)
    config = DPOConfig(
        **training_arguments(experiment, output_dir),
        max_length=experiment.data.max_length,
        precompute_ref_batch_size=experiment.train.per_device_eval_batch_size,
        **method.model_dump(exclude={"type"}),
    )
    return _DPOTrainer(
        method=method,
        reference=reference_of(experiment, model),
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
    )


class _DPOTrainer(OneReference, ByRows, DPOTrainer):
    """TRL's DPOTrainer on rows that are token ids already."""

    def __init__(self, method: DPO, **kwargs: Any) -> None:
        self.method = method
        super().__init__(**kwargs)

    def ready_rows(self, dataset: Any, args: DPOConfig, name: str) -> Any:
        return dataset

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        counted = inputs["completion_mask"]
        labels = inputs["input_ids"].masked_fill(counted == 0, IGNORED)
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        log_probs = model(**read, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        chosen, rejected = log_probs[:, 1 - labels.shape[1] :].sum(1).chunk(2)
        if self.precompute_ref_logps:
            reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            reference = self.compute_ref_log_probs(self.ref_model or model, inputs)
        tokens = counted[:, 1:].sum(1).chunk(2)
        names = ("chosen", "rejected", "reference_chosen", "reference_rejected", "chosen_tokens", "rejected_tokens")
        return dict(zip(names, (chosen, rejected, *reference, *tokens), strict=True))

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.method)
