"""Metrics over labels that the model writes: accuracy and macro F1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftlib.config.evaluation import Accuracy, F1Macro
from ftlib.errors import ConfigError, DataError, nearest
from ftlib.evaluation.score import Floats, Score, share_of
from ftlib.evaluation.task import Answer, Question
from ftlib.evaluation.text_metrics import one_spaced

AROUND = " \t\r\n\"'“”‘’«»*_`([{<"  # what may stand before a label
MOST = 500  # labels: more are texts


def accuracy(metric: Accuracy, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The share of answers that begin with the right label. Raises as `f1_macro`."""
    right, said, _ = _read(metric, questions, answers)
    return share_of(metric, [mine == theirs for mine, theirs in zip(said, right, strict=True)])


def f1_macro(metric: F1Macro, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The mean over labels of their F1, as scikit-learn's `f1_score(average="macro")` has it: over the labels that a
    reference or an answer of these rows has. An answer that is no label is missing for its label, and wrong for none.

    A row is worth 1 where its label is right, else 0. Raises ConfigError for labels that cannot be told apart, and
    DataError for a reference that is none of the labels, or for more than 500 labels.
    """
    right, said, labels = _read(metric, questions, answers)
    if len(labels) > MOST:
        raise DataError(f"metric f1_macro: the references have {len(labels):,} labels: more than {MOST} are texts.")
    index = {label: number for number, label in enumerate(labels)}
    sums = np.zeros((len(right), 3, len(labels)))  # matched, said, right: a 1 for the row's label
    for row, (mine, theirs) in enumerate(zip(said, right, strict=True)):
        sums[row, 2, index[theirs]] = 1
        if mine is not None:
            sums[row, 1, index[mine]] = 1
            sums[row, 0, index[mine]] = mine == theirs
    rows = sums[:, 0].sum(axis=1)
    return Score(metric.name, metric.better, rows, sums.reshape(len(right), -1), _mean_f1)


def _mean_f1(sums: Floats) -> Floats:
    matched, said, right = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    there = said + right > 0
    f1 = np.divide(2 * matched, said + right, out=np.zeros_like(matched), where=there)
    mean: Floats = f1.sum(axis=1) / there.sum(axis=1)
    return mean


def _read(
    metric: Accuracy | F1Macro, questions: Sequence[Question], answers: Sequence[Answer]
) -> tuple[list[str], list[str | None], list[str]]:
    """The right label of each row, the one that the model wrote (None: no label), and all labels."""
    right = [_folded(question.reference) for question in questions]
    labels = list(dict.fromkeys(right)) if metric.labels is None else labels_of(metric)
    known = frozenset(labels)
    for row, label in enumerate(right, start=1):
        if label not in known:
            raise DataError(
                f"metric {metric.type}: the reference of row {row}, '{label[:60]}', is none of its labels "
                f"({', '.join(labels[:8])}).{nearest(label, labels)}"
            )
    longest_first = sorted(labels, key=len, reverse=True)
    return right, [_label(answer.text, longest_first) for answer in answers], labels


def labels_of(metric: Accuracy | F1Macro) -> list[str]:
    """The labels of the section. Raises ConfigError where two differ in case alone, and for none."""
    labels = [_folded(label) for label in metric.labels or ()]
    twice = next((label for label in labels if labels.count(label) > 1 or not label), None)
    if twice is not None or not labels:
        raise ConfigError(f"metric {metric.type}: labels {metric.labels} must be texts that differ in more than case.")
    return labels


def label_of(text: str, labels: Sequence[str]) -> str | None:
    """Which of `labels` an answer begins with, as they are written; None for an answer that is no label."""
    written = {_folded(label): label for label in labels}
    found = _label(text, sorted(written, key=len, reverse=True))
    return None if found is None else written[found]


def _label(text: str, longest_first: Sequence[str]) -> str | None:
    """The longest label that the answer begins with. A label ends where its word does: `no` does not begin
    `nothing`, and `1` does not begin `12`."""
    said = _folded(text[:1000].lstrip(AROUND))
    return next((label for label in longest_first if said.startswith(label) and _ends(said[len(label) :])), None)


def _ends(rest: str) -> bool:
    """Whether a word ends before the rest. Scripts without upper and lower case may have no spaces."""
    return not rest or not (rest[0].isdigit() or rest[0].lower() != rest[0].upper())


def _folded(label: str) -> str:
    return one_spaced(label).casefold()
