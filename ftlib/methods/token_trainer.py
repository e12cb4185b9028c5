"""TRL's SFTTrainer, evaluated row by row: the trainer of every method that learns labelled tokens."""

from __future__ import annotations

from typing import Any

from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ftlib.data.tokenize import IGNORED
from ftlib.methods.evaluation import ByRows
from ftlib.methods.pack_losses.language import summary
from ftlib.methods.table import Table


class AnswerTrainer(ByRows, SFTTrainer):
    """Evaluation rows are never packed, so they come padded whatever the training rows are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eval_collator = DataCollatorForLanguageModeling(self.processing_class.pad_token_id)

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        counted = inputs["labels"][:, 1:] != IGNORED
        places = counted.shape[1]  # an adapter's virtual tokens stand before the row's own
        sums = {"nll": -outputs.log_probs, "entropy": outputs.entropy, "right": outputs.is_top1}
        return {"tokens": counted.sum(1), **{name: part[:, -places:].sum(1) for name, part in sums.items()}}

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table)
