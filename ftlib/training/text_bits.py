"""Bits per byte: a loss on text that does not depend on how a tokenizer cuts it (Gao et al. 2020, arXiv:2101.00027).

A mean over tokens of one base is another number than that of another base. The sum over an answer's tokens is the
likelihood of its text, so it is divided by the bytes of the text instead. What a chat template adds (the end of a turn)
is in the sum, as it is in the loss, and not in the bytes: it is no text of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ftlib.config.methods.base import BITS
from ftlib.data.tokenize import IGNORED
from ftlib.errors import TrialError


def asks_for_bits(names: Sequence[str]) -> bool:
    """Whether one of these metrics is bits per byte."""
    return BITS in names


def answer_texts(rows: Any, tokenizer: Any) -> list[str]:
    """The text of the tokens of each row that have a loss, without special tokens."""
    labels = [[token for token in row if token != IGNORED] for row in rows["labels"]]
    texts: list[str] = tokenizer.batch_decode(labels, skip_special_tokens=True)
    return [text.strip() for text in texts]


def bits_of_a_loss(rows: Any, tokenizer: Any, part: Sequence[int] | None = None) -> float:
    """What a mean loss over the labelled tokens of some rows, in nats a token, is multiplied with for bits a byte.

    `rows` are the held-out rows with their `labels`; `part` are numbers of rows, None all.
    """
    some = rows if part is None else rows.select(part)
    tokens = sum(token != IGNORED for row in some["labels"] for token in row)
    size = sum(len(text.encode()) for text in answer_texts(some, tokenizer))
    return float(tokens / max(size, 1) / math.log(2))


def check_same_texts(own: Any, own_tokenizer: Any, shared: Any, tokenizer: Any) -> None:
    """Raises TrialError where the held-out rows of two tokenizers are other texts: one of them was cut."""
    if answer_texts(own, own_tokenizer) != answer_texts(shared, tokenizer):
        raise TrialError(
            "its tokenizer makes other texts of the held-out rows than the other trials' (data.max_length cuts them at "
            "other places): raise data.max_length."
        )


__all__ = ["answer_texts", "asks_for_bits", "bits_of_a_loss", "check_same_texts"]
