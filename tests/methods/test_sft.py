"""Supervised fine-tuning: what TRL does to rows that are tokenized already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..conftest import write_jsonl


def test_packed_rows_keep_their_turns_without_loss(tree: dict[str, Any], base: Path, tmp_path: Path) -> None:
    """Of the batches that a packed trial trains on, a turn of weight 0 is no label, nor is the first token of a row."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftlib.config import Experiment
    from ftlib.data import prepare
    from ftlib.methods.sft import trainer

    turns = [("user", "q", None), ("assistant", "BAD", 0), ("user", "r", None), ("assistant", "GOOD", 1)]
    messages = [{"role": role, "content": said, "weight": weight} for role, said, weight in turns]
    rows = write_jsonl(tmp_path / "x.jsonl", [{"messages": messages}] * 12)
    tree["data"] = {"train": str(rows), "max_length": 128, "packing": True, "eval_split": 0}
    experiment, tokenizer = Experiment.parse(tree), AutoTokenizer.from_pretrained(base)
    data = prepare(experiment.data, "answers", tokenizer, cache=tmp_path / "cache")
    built = trainer(experiment, AutoModelForCausalLM.from_pretrained(base), tokenizer, data, tmp_path / "out")
    assert len(built.train_dataset) < len(data.train)
    read = learned = ""
    for batch in built.get_train_dataloader():
        read += tokenizer.decode(batch["input_ids"].flatten())
        learned += tokenizer.decode([label for label in batch["labels"].flatten().tolist() if label != -100])
    assert (read.count("BAD"), read.count("GOOD")) == (12, 12)
    assert (learned.count("BAD"), learned.count("GOOD"), learned.count("q")) == (0, 12, 0)
