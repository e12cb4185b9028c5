"""`evaluation:` what the model has to do, how an answer is scored, and whom the winner is compared with."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.section import Section
from ftlib.errors import nearest
from ftlib.files.url_keys import host_of

SERVED = ("http://", "https://")
Better = Literal["min", "max"]
SHARES = ("exact_match", "contains", "regex", "number", "accuracy", "valid_json")  # of rows


def is_served(name: str) -> bool:
    """Whether a name is that of a model behind a URL."""
    return name.startswith(SERVED)


def _why_not_asked(name: str) -> str | None:
    """Why https://HOST/v1#MODEL can be no model, as a sentence; None where it can. A URL stands in reports."""
    url, _, model = name.partition("#")
    parts = urlsplit(url)
    if parts.username or parts.password:
        return f"a password in the URL of {parts.hostname} would stand in reports: name its key in key_env"
    if not parts.hostname:
        return f"'{url}' names no host: write https://HOST/v1#MODEL"
    return None if model else f"{url} names no model: write {url}#MODEL"


class _Metric(Section):
    """What all metrics have: a type, which is the metric's name on leaderboards, and which way is better."""

    @property
    def name(self) -> str:
        """Its name on leaderboards: `exact_match` of `tickets/exact_match`."""
        name: str = self.type  # type: ignore[attr-defined]
        return name

    @property
    def better(self) -> Better:
        """`max` where a higher number is better."""
        return "max"

    @property
    def is_share(self) -> bool:
        """Whether it is the share of rows whose answer is right."""
        return self.type in SHARES  # type: ignore[attr-defined]


class ExactMatch(_Metric):
    """Whether the answer is the reference."""

    type: Literal["exact_match"]
    """1 where the answer is the reference, else 0."""
    normalize: Literal["none", "whitespace", "squad"] = "whitespace"
    """What is made alike before texts are compared. whitespace: spaces and line breaks at the ends go, and those within
    are one space. squad: also case, punctuation and English articles (a, an, the) go. none: nothing."""


class Contains(_Metric):
    """Whether the reference stands in the answer."""

    type: Literal["contains"]
    """1 where the reference stands in the answer, else 0. Case does not count."""


class Regex(_Metric):
    """Whether the answer has a shape."""

    type: Literal["regex"]
    """1 where the pattern is found in the answer, else 0. With a group in the pattern, the text of the first group must
    also be the reference."""
    pattern: str = Field(min_length=1, max_length=1000)
    """A regular expression of Python's."""

    @model_validator(mode="after")
    def _compiles(self) -> Regex:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"pattern '{self.pattern}' is no regular expression: {error}") from None
        return self


class Number(_Metric):
    """Whether the answer comes to the right number (GSM8K's metric)."""

    type: Literal["number"]
    """1 where the answer's number is the reference's, else 0. It is the number after '####' where that stands, else the
    last number of the text."""
    tolerance: float = Field(default=0.0, ge=0)
    """How far the two numbers may be apart."""


class Accuracy(_Metric):
    """How often the model writes the right label."""

    type: Literal["accuracy"]
    """The share of answers that are the right label. An answer is a label when it begins with it; case does not
    count."""
    labels: list[str] | None = None
    """The labels. null takes those of the references."""


class F1Macro(_Metric):
    """The F1 of each label, averaged."""

    type: Literal["f1_macro"]
    """The mean over labels of their F1. An answer that is no label is a mistake for each label."""
    labels: list[str] | None = None
    """The labels. null takes those of the references."""


class TokenF1(_Metric):
    """The words that answer and reference share."""

    type: Literal["token_f1"]
    """F1 of the words of answer and reference, as SQuAD has it; the mean over the rows."""


class Rouge(_Metric):
    """ROUGE (Lin 2004): n-grams or the longest common part that answer and reference share."""

    type: Literal["rouge"]
    """The F-measure of ROUGE, the mean over the rows. It needs the extra ftlib[metrics]."""
    variant: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] = "rougeL"
    """Which ROUGE: single words, pairs of words, or the longest common subsequence."""


class Bleu(_Metric):
    """BLEU (sacrebleu): n-grams of the answers that are in the references."""

    type: Literal["bleu"]
    """BLEU of all answers together, 0 to 100, by sacrebleu. It needs the extra ftlib[metrics]."""


class Chrf(_Metric):
    """chrF (sacrebleu): n-grams of characters."""

    type: Literal["chrf"]
    """chrF of all answers together, 0 to 100, by sacrebleu. It needs the extra ftlib[metrics]."""


class ValidJson(_Metric):
    """Whether the answer is JSON."""

    type: Literal["valid_json"]
    """1 where the answer is JSON and fits the schema, else 0."""
    json_schema: dict[str, Any] | str | None = None
    """A JSON Schema, or the path of its file. null asks for an object of any kind."""


class JsonF1(_Metric):
    """How many fields of a JSON answer are right."""

    type: Literal["json_f1"]
    """F1 of the fields (path and value) of answer and reference; the mean over the rows. No JSON gives 0."""
    json_schema: dict[str, Any] | str | None = None
    """A JSON Schema, or the path of its file: an answer that does not fit it gets 0. null checks nothing."""


class Wer(_Metric):
    """The word error rate."""

    type: Literal["wer"]
    """Words to insert, delete or replace, for each word of the references (jiwer); lower is better. It needs the extra
    ftlib[metrics]."""

    @property
    def better(self) -> Better:
        return "min"


class Perplexity(_Metric):
    """How surprised the model is by the references."""

    type: Literal["perplexity"]
    """exp of the mean negative log-likelihood of the references' tokens; lower is better. It needs the model itself: a
    URL has none."""

    @property
    def better(self) -> Better:
        return "min"


class Function(_Metric):
    """A function of yours."""

    type: Literal["function"]
    """A number for each answer from a function of yours: score(answer, reference, prompt) -> float."""
    function: str = Field(pattern=r"^[^:]+:[A-Za-z_]\w*$")
    """Where the function is: 'package.module:name' or 'path/to/file.py:name'."""
    mode: Better = "max"
    """Which way is better."""

    @property
    def name(self) -> str:
        return self.function.rpartition(":")[2]

    @property
    def better(self) -> Better:
        return self.mode


class Judge(_Metric):
    """A model that judges answers, behind an OpenAI-compatible URL."""

    type: Literal["judge"]
    """A judge's score of each answer, 0 to 1; the mean over the rows."""
    url: str = Field(pattern=r"^https?://")
    """The judge's base URL, https://api.openai.com/v1."""
    model: str = Field(min_length=1)
    """The judge's model."""
    rubric: str = "Is the answer correct, complete and helpful?"
    """What the judge looks at, in your words."""
    pairwise: bool = False
    """Whether the judge compares the answer with the reference instead of grading it. Both orders are asked: 1 where
    the answer wins both, 0 where the reference does, else 0.5."""
    api_key_env: str | None = None
    """The environment variable that holds the judge's key. null sends OPENAI_API_KEY to api.openai.com, or to the host
    of OPENAI_BASE_URL where that is set, and no key to any other host."""


MetricSection = Annotated[
    ExactMatch | Contains | Regex | Number | Accuracy | F1Macro | TokenF1 | Rouge | Bleu | Chrf | ValidJson | JsonF1
    | Wer | Perplexity | Function | Judge,
    Field(discriminator="type"),
]  # fmt: skip


def named_metric(value: Any) -> Any:
    """A name alone is a metric with its defaults: `exact_match` is `{type: exact_match}`."""
    return {"type": value} if isinstance(value, str) else value


class TaskSection(Section):
    """A task: rows with questions and right answers, and the metrics of the model's answers."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")
    """The name of the task. Its metrics are called NAME/METRIC: tickets/exact_match."""
    data: str = Field(min_length=1)
    """A file, a folder or a data set on the Hub. Each row has a prompt and its right answer, in any format that
    trains with answers (docs/data.md)."""
    metrics: list[
        Annotated[MetricSection, BeforeValidator(named_metric, json_schema_input_type=str | MetricSection)]
    ] = Field(min_length=1)
    """How answers are scored: names (exact_match), or sections ({type: regex, pattern: ...}). The first one decides."""
    role: Literal["target", "regression"] = "target"
    """target: what the model should learn. regression: what it should not forget."""
    max_new_tokens: int = Field(default=64, ge=1, le=4096)
    """The longest answer, in tokens."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many rows, the first ones. null takes all."""
    trial_rows: int | None = Field(default=None, ge=1)
    """For the task of sweep.metric: the rows that trials answer at their evaluations. The verdict is on the other rows:
    who was chosen by some rows is the better for it on those. null takes half of the rows, at most 100."""
    group: str | None = None
    """The column whose value rows of one origin share (document_id). Such rows count as one for the statistics. null
    counts each row."""
    system: str | None = None
    """A system message before each prompt, for every model. null adds none."""
    instructions: str | None = None
    """What base, few_shot and rag are told of the task, as a system message. The winner has learned it and is not told.
    null tells nothing."""

    @model_validator(mode="after")
    def _names_differ(self) -> TaskSection:
        names = [metric.name for metric in self.metrics]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"metrics has '{twice}' twice: one of a kind can be told apart")
        return self


class EvaluationSection(Section):
    """Tasks that the models of a sweep do, and whom the winner is compared with."""

    tasks: list[TaskSection] = Field(default_factory=list)
    """What is to be done. After the sweep, the winner and those of `against` do each task."""
    few_shot: int = Field(default=4, ge=1, le=64)
    """The examples that few_shot shows the base, drawn from the training rows."""
    against: list[str] = Field(default_factory=lambda: ["base", "few_shot"])
    """Whom the winner is compared with: base (the base, given the prompt alone), few_shot (the base, shown examples),
    rag (the base, given passages of `passages`), registry:NAME or registry:NAME@N (a promoted version), the directory
    of a model, or https://HOST/v1#MODEL (an OpenAI-compatible URL)."""
    key_env: dict[str, str] = Field(default_factory=dict)
    """The environment variable with the key of each host of `against`: {api.together.xyz: TOGETHER_API_KEY}. Without
    one, OPENAI_API_KEY goes to api.openai.com, or to the host of OPENAI_BASE_URL where that is set, and no key to any
    other host."""
    passages: str | None = None
    """A folder of text files. rag puts their best passages (BM25) before each prompt."""
    seeds: int = Field(default=1, ge=1, le=20)
    """Trainings of the winner's settings, each with another seed, the winner's own among them. 1 trains no others."""
    seed: int = 0
    """The seed of the examples that few_shot shows, and of the bootstrap."""

    @model_validator(mode="after")
    def _names_differ(self) -> EvaluationSection:
        names = [task.name for task in self.tasks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tasks are called '{twice}'")
        if "rag" in self.against and self.passages is None:
            raise ValueError("against names rag, which needs passages: a folder of text files")
        return self

    @model_validator(mode="after")
    def _urls_can_be_asked(self) -> EvaluationSection:
        why = next(filter(None, map(_why_not_asked, self.served)), None)
        if why is not None:
            raise ValueError(f"against: {why}")
        hosts = [host_of(url) for url in self.served]
        for host in self.key_env:
            if host.lower() not in hosts:
                there = f" Its URLs are at {', '.join(hosts)}." if hosts else " It names no URL."
                raise ValueError(f"key_env: against names no model at '{host}'.{nearest(host, hosts)}{there}")
        kinds = {metric.type: task.name for task in self.tasks for metric in task.metrics}
        if self.served and "perplexity" in kinds:
            raise ValueError(
                f"against names {self.served[0]}, and metric perplexity (of the task '{kinds['perplexity']}') needs "
                "the model itself"
            )
        return self

    @property
    def served(self) -> list[str]:
        """Those of `against` that are behind a URL."""
        return [name for name in self.against if is_served(name)]

    @property
    def metrics(self) -> dict[str, Better]:
        """TASK/METRIC of each, and which way is better."""
        return {f"{task.name}/{metric.name}": metric.better for task in self.tasks for metric in task.metrics}

    @property
    def shares(self) -> set[str]:
        """TASK/METRIC of those that are shares of rows."""
        return {f"{task.name}/{metric.name}" for task in self.tasks for metric in task.metrics if metric.is_share}

    def task(self, name: str) -> TaskSection | None:
        """The task of that name, if there is one."""
        return next((task for task in self.tasks if task.name == name), None)
