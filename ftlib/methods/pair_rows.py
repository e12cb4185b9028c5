"""Rows of pairs for TRL's experimental trainers, which would tokenize them themselves."""

from __future__ import annotations

from typing import Any


class PairRows:
    """Before a trainer that reads rows by `tokenize_row` (ORPO, CPO): takes rows that are ids already."""

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """The columns that the trainer's collator wants, of one row of `prompt_ids`, `chosen_ids`, `rejected_ids`."""
        prompt = feature["prompt_ids"]
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for name in ("chosen", "rejected"):
            answer = feature[f"{name}_ids"]
            row[f"{name}_input_ids"] = prompt + answer
            row[f"{name}_attention_mask"] = [1] * len(prompt + answer)
            row[f"{name}_labels"] = [-100] * len(prompt) + answer
        return row
