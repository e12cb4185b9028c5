"""Every metric of `ftlib.config.evaluation`, and what computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from ftlib.config import evaluation as config
from ftlib.config.evaluation import MetricSection
from ftlib.config.section import Section
from ftlib.errors import ConfigError, InputError
from ftlib.evaluation import (
    corpus_metrics,
    function_metric,
    json_metrics,
    judge,
    label_metrics,
    number_metric,
    text_metrics,
)
from ftlib.evaluation.score import Score
from ftlib.evaluation.task import Answer, Question

METRICS: dict[type[Section], Callable[..., Score]] = {
    config.ExactMatch: text_metrics.exact_match,
    config.Contains: text_metrics.contains,
    config.Regex: text_metrics.regex,
    config.Number: number_metric.number,
    config.Accuracy: label_metrics.accuracy,
    config.F1Macro: label_metrics.f1_macro,
    config.TokenF1: text_metrics.token_f1,
    config.Rouge: corpus_metrics.rouge,
    config.Bleu: corpus_metrics.bleu,
    config.Chrf: corpus_metrics.chrf,
    config.ValidJson: json_metrics.valid_json,
    config.JsonF1: json_metrics.json_f1,
    config.Wer: corpus_metrics.wer,
    config.Perplexity: corpus_metrics.perplexity,
    config.Function: function_metric.function,
    config.Judge: judge.judge,
}
READ = (config.Number, config.Accuracy, config.F1Macro, config.JsonF1)  # they read each reference
TRIED = (config.Regex, config.Function)  # they run what a user wrote
PACKAGES = {config.Rouge: "rouge_score", config.Bleu: "sacrebleu", config.Chrf: "sacrebleu", config.Wer: "jiwer"}


def score(metric: MetricSection, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """What a metric says of the answers to questions, one for each.

    Raises InputError for a task without rows, ConfigError for a section that cannot be used (`check` raises the same
    before any work), and DataError for a reference that the metric cannot read.
    """
    if not questions:
        raise InputError(f"metric {metric.type}: there are no rows to score.")
    if why := why_not_there(metric):
        raise ConfigError(why)
    return METRICS[type(metric)](metric, questions, answers)


def why_not_there(metric: MetricSection) -> str | None:
    """A sentence on the library that a metric needs and that is not installed; None where nothing is missing."""
    package = PACKAGES.get(type(metric))
    if package is None or find_spec(package) is not None:
        return None
    return f"metric {metric.type}: it needs the package {package}: pip install 'ftlib[metrics]'."


def check(metric: MetricSection, questions: Sequence[Question] = ()) -> None:
    """Raises ConfigError for what is missing: a library, the file of a schema, a function, a judge's key.

    With the `questions` of a task also DataError for a reference that the metric cannot read, and ConfigError for a
    function that fails on the first of them. So nobody answers in vain.
    """
    if why := why_not_there(metric):
        raise ConfigError(why)
    if isinstance(metric, config.ValidJson | config.JsonF1) and metric.json_schema is not None:
        json_metrics.Schema(metric.json_schema, metric.type)
    elif isinstance(metric, config.Function):
        function_metric.loaded(metric)
    elif isinstance(metric, config.Judge):
        judge.key_of(metric)
    elif isinstance(metric, config.Accuracy | config.F1Macro) and metric.labels is not None:
        label_metrics.labels_of(metric)
    some = questions if isinstance(metric, READ) else questions[:1] if isinstance(metric, TRIED) else ()
    if some:
        score(metric, some, [Answer(question.reference) for question in some])
