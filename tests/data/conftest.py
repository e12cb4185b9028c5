"""A byte-level BPE tokenizer trained on the spot, and files written from rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftlib.config.data import DataSection

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
CORPUS = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction: Name the capital of France. ### Response: Paris is the capital of France.",
    "What is 2 + 2? It is 4. The answer to question 17 is number 17.",
] * 4


def make_tokenizer(
    *, bos: bool = False, vocabulary: int = 400, trim_offsets: bool = False, extra: tuple[str, ...] = ()
):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS, PAD, *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    if bos:
        backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS, pad_token=PAD)


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own cache, and no network."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows (or text, or bytes) to a file of the kind that its name says."""

    def write_file(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(content), path)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write_file


def section(path: Path | str | list[Any], **settings: Any) -> DataSection:
    return DataSection(train=path if isinstance(path, list) else str(path), **settings)


def alpaca(count: int) -> list[dict[str, str]]:
    return [{"instruction": f"Question {number}?", "output": f"The answer is {number}."} for number in range(count)]


def trained_texts(rows, tokenizer) -> list[str]:
    """The decoded runs of labelled tokens of each row, joined by `|`."""
    texts = []
    for row in rows:
        runs: list[list[int]] = [[]]
        for label in row["labels"]:
            if label != -100:
                runs[-1].append(label)
            elif runs[-1]:
                runs.append([])
        texts.append("|".join(tokenizer.decode(run) for run in runs if run))
    return texts
