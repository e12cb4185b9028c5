"""`kind: on_policy` on TRL's DistillationTrainer: the student writes, the teacher's distribution corrects every token
(generalized knowledge distillation, Agarwal et al. 2024, arXiv:2306.13649)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import DistillationConfig, DistillationTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftlib.config import Experiment
from ftlib.data.tokenize import IGNORED
from ftlib.methods.arguments import training_arguments
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.language import summary
from ftlib.methods.table import Table
from ftlib.models.adapters.build import make_optimizer


class OnPolicyDistiller(ByRows, DistillationTrainer):
    """Evaluated on the known answers, as every other student: `eval_loss` is their cross-entropy."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.eval_collator = DataCollatorForLanguageModeling(self.processing_class.pad_token_id)

    def used_columns(self, dataset: Any, description: str | None) -> Any:
        """TRL keeps the columns of prompts alone. The rows of an evaluation have answers, so they keep all columns."""
        return dataset if description == "Evaluation" else super().used_columns(dataset, description)

    def ready(self, inputs: Any) -> Any:
        """TRL writes completions here. The rows of an evaluation have theirs."""
        return super().ready(inputs) if self.model.training else self.on_device(inputs)

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        labels = inputs["labels"][:, 1:]
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        log_probs = model(**read, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        counted = labels != IGNORED
        told = log_probs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        parts = {
            "nll": -told,
            "entropy": -(log_probs.exp() * log_probs).sum(-1),
            "right": log_probs.argmax(-1) == labels,
        }
        return {"tokens": counted.sum(1), **{name: (part * counted).sum(1) for name, part in parts.items()}}

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table)


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
