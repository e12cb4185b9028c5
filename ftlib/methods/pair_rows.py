"""Rows of pairs for TRL's experimental trainers, which would tokenize them themselves."""

from __future__ import annotations

from typing import Any

from trl.trainer.utils import selective_log_softmax

from ftlib.data.tokenize import IGNORED
from ftlib.methods.table import Table


class PairRows:
    """Before a trainer that reads rows by `tokenize_row` (ORPO, CPO): takes rows that are ids already, and says of each
    pair what its loss is made of."""

    nll_on_prompt = True  # whether the chosen text's own cross-entropy counts its prompt too

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """The columns that the trainer's collator wants, of one row of `prompt_ids`, `chosen_ids`, `rejected_ids`."""
        prompt = feature["prompt_ids"]
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for name in ("chosen", "rejected"):
            answer = feature[f"{name}_ids"]
            row[f"{name}_input_ids"] = prompt + answer
            row[f"{name}_attention_mask"] = [1] * len(prompt + answer)
            row[f"{name}_labels"] = [IGNORED] * len(prompt) + answer
        return row

    def score(self, model: Any, inputs: dict[str, Any]) -> Table:
        """Each [pairs]: the NLL of the chosen text summed over its tokens, how many those are, and the mean
        log-probabilities of the chosen and of the rejected answer."""
        chosen, rejected, logits = self.concatenated_forward(model, inputs)[:3]
        ids = inputs["chosen_input_ids"][:, 1:]
        counted = inputs["chosen_attention_mask"][:, 1:] > 0
        if not self.nll_on_prompt:
            counted = inputs["chosen_labels"][:, 1:] != IGNORED
        nll = -selective_log_softmax(logits[:, : ids.shape[1]], ids) * counted
        return {"nll": nll.sum(1), "tokens": counted.sum(1), "chosen": chosen, "rejected": rejected}

    concatenated_forward: Any
