"""`kind: on_policy` on TRL's DistillationTrainer: the student writes, the teacher's distribution corrects every token
(generalized knowledge distillation, Agarwal et al. 2024, arXiv:2306.13649)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from trl import DistillationConfig, DistillationTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftlib.adapters.build import make_optimizer
from ftlib.config import Experiment
from ftlib.methods.arguments import training_arguments


class OnPolicyDistiller(DistillationTrainer):
    """Evaluated on the known answers, as every other student: `eval_loss` is their cross-entropy."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        collator = DataCollatorForLanguageModeling(self.processing_class.pad_token_id)
        loader = DataLoader(self.eval_dataset, self.args.eval_batch_size, collate_fn=collator)
        return self.accelerator.prepare(loader)

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, None, None]:
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: torch.Tensor = model(**inputs, use_cache=False).loss
        return loss.detach(), None, None


def make_trainer(
    experiment: Experiment, model: Any, teacher: Any, tokenizer: Any, prompts: Any, answers: Any, output_dir: Path
) -> OnPolicyDistiller:
    """A trainer on `prompts` that is evaluated on `answers`."""
    method: Any = experiment.method
    vocabulary = model.config.get_text_config().vocab_size
    if teacher.config.get_text_config().vocab_size > vocabulary:  # padding: the tokenizer has no such ids
        teacher.resize_token_embeddings(vocabulary)
    config = DistillationConfig(
        **training_arguments(experiment, output_dir),
        beta=method.beta,
        temperature=method.temperature,
        max_completion_length=method.max_completion_length,
    )
    return OnPolicyDistiller(
        model=model,
        teacher_model=teacher,
        args=config,
        train_dataset=prompts,
        eval_dataset=answers,
        processing_class=tokenizer,
        optimizers=(make_optimizer(experiment, model), None),
    )
