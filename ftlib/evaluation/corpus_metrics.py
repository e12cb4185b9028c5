"""Metrics that other libraries compute: ROUGE, BLEU, chrF, WER; and perplexity, which is computed over all tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ftlib.config.evaluation import Bleu, Chrf, Perplexity, Rouge, Wer
from ftlib.errors import InputError
from ftlib.evaluation.score import Floats, Score, mean_of, share_of_sums
from ftlib.evaluation.task import Answer, Question

LONGEST = 10_000  # characters of a text that ROUGE reads: its longest common subsequence is quadratic


def rouge(metric: Rouge, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The mean over rows of ROUGE's F-measure (Lin 2004) by rouge-score, without stemming. It reads the first 10,000
    characters of each text."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([metric.variant])
    pairs = zip(questions, answers, strict=True)
    found = [scorer.score(question.reference[:LONGEST], answer.text[:LONGEST]) for question, answer in pairs]
    return mean_of(metric, [row[metric.variant].fmeasure for row in found])


def bleu(metric: Bleu, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """BLEU (Papineni et al. 2002) of all rows by sacrebleu with its defaults, 0 to 100; a row's own is sacrebleu's
    sentence BLEU."""
    from sacrebleu.metrics import BLEU

    return _of_sacrebleu(metric, questions, answers, BLEU(force=True), BLEU(effective_order=True))


def chrf(metric: Chrf, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """chrF (Popović 2015) of all rows by sacrebleu with its defaults, 0 to 100; a row's own is its sentence chrF."""
    from sacrebleu.metrics import CHRF

    return _of_sacrebleu(metric, questions, answers, CHRF(), CHRF())


def _of_sacrebleu(
    metric: Bleu | Chrf, questions: Sequence[Question], answers: Sequence[Answer], corpus: Any, sentence: Any
) -> Score:
    """The counts of n-grams are those that sacrebleu's own significance tests add up (its names with a _)."""
    said, right = [answer.text for answer in answers], [question.reference for question in questions]
    sums = np.asarray(corpus._extract_corpus_statistics(said, [right]), dtype=np.float64)
    rows = np.array([sentence._compute_score_from_stats(row).score for row in sums])
    return Score(metric.name, metric.better, rows, sums, partial(_by_sacrebleu, corpus))


def _by_sacrebleu(corpus: Any, sums: Floats) -> Floats:
    return np.array([corpus._compute_score_from_stats(row).score for row in sums])


def wer(metric: Wer, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """Words to insert, delete or replace, over all words of the references, by jiwer with its defaults."""
    import jiwer

    pairs = zip(questions, answers, strict=True)
    found = [jiwer.process_words(question.reference, answer.text) for question, answer in pairs]
    wrong = [row.substitutions + row.deletions + row.insertions for row in found]
    sums = np.array([wrong, [len(row.references[0]) for row in found]], dtype=np.float64).T
    return Score(metric.name, metric.better, np.array([row.wer for row in found], dtype=np.float64), sums, _word_errors)


def _word_errors(sums: Floats) -> Floats:
    """The errors themselves where the references have no word, as jiwer has it."""
    return sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], 1.0)


def perplexity(metric: Perplexity, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """exp of the negative log-likelihood of the references, summed over rows, over their tokens. A row whose likelihood
    nobody computed has no value. Raises InputError where no row has one."""
    measured = [answer.nll is not None and answer.nll_tokens > 0 for answer in answers]
    if not any(measured):
        raise InputError(
            "metric perplexity: it needs the model itself. A URL gives no likelihoods, and neither does a model that "
            "writes by transformers' own loop (prompt tuning, sliding windows): take perplexity out."
        )
    known = zip(answers, measured, strict=True)
    sums = np.array([[answer.nll or 0.0, answer.nll_tokens] if there else [0.0, 0.0] for answer, there in known])
    return Score(metric.name, metric.better, _exp_of_mean(sums), sums, _exp_of_mean)


def _exp_of_mean(sums: Floats) -> Floats:
    with np.errstate(over="ignore"):
        found: Floats = np.exp(share_of_sums(sums))
    return found
