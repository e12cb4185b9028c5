"""What a classifier is worth: its winner beside the majority class and the base's own answers, on the held-out rows.

A head that is not trained yet labels by chance of its seed, so it is no baseline. Two others are: whoever always says
the most frequent label of these rows (the no-information rate), and the base as a language model, asked for the label
in words (zero-shot). A classifier always says one of the labels, and so does the base here: its answer is the label
that it finds likeliest, since a small model writes much else. An encoder cannot be asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from transformers import DataCollatorWithPadding

from ftlib.config import Experiment, ModelSection, TaskSection
from ftlib.data import prepare_again
from ftlib.driver.contenders import WINNER, Contenders, ready, weights_of
from ftlib.driver.seeds import replicas_of, seed_name
from ftlib.driver.task_gate import LABELS, MAJORITY
from ftlib.errors import InputError
from ftlib.evaluation.answers import Writer, answers, why_not_drafted
from ftlib.evaluation.loaded import Loaded
from ftlib.evaluation.prompting import as_it_is, prompted, told
from ftlib.evaluation.results import Contender, Results, TaskResult, done
from ftlib.evaluation.task import Answer, Question
from ftlib.models.base import base_of, load_config, load_model, load_tokenizer
from ftlib.registry import registry
from ftlib.registry.agreement import beside_base
from ftlib.registry.bases import REGISTRY
from ftlib.run.remote_run import bring_weights

if TYPE_CHECKING:
    from pathlib import Path

    from ftlib.registry.version import Version
    from ftlib.run.directory import Run, Trial

ROWS = 500  # at most, evenly spread
READ = 2000  # questions with one of their labels that a base reads, at most
NAMED = 20  # labels that a base can be told of
SPARE = 4  # tokens of an answer beside the label: a space, a quotation mark
WRITES = ("ForCausalLM", "LMHeadModel")  # how the architectures of language models end


@dataclass(frozen=True)
class HeldOut:
    """The rows that the winner was chosen on: their tokens, their texts, and their right labels."""

    labels: tuple[str, ...]
    ids: list[list[int]]
    questions: list[Question]

    @property
    def most_frequent(self) -> str:
        """The best that somebody can say who does not look at the texts."""
        return Counter(question.reference for question in self.questions).most_common(1)[0][0]


def compare_classifier(experiment: Experiment, run: Run, trial: str) -> tuple[dict[str, Any], list[str]]:
    """As `evaluate.compare_winner`, with the held-out rows as the task. Raises FtlibError for rows or weights that
    cannot be had."""
    tokenizer = load_tokenizer(experiment.model, experiment.method.head)
    rows = _held_out(experiment, run, tokenizer)
    makers = list(_contenders(experiment, run, run.trial(trial), rows, tokenizer))
    results = _done(experiment, rows, tokenizer, makers)
    return numbers_of(results, run), list(results.lines())


def compare_copy(experiment: Experiment, run: Run, staged: Version, what: str, rivals: Sequence[str]) -> Results:
    """A copy of a trial that is about to be promoted beside MAJORITY, base, and versions (registry:NAME@N), on the same
    rows. Raises as `compare_classifier`."""
    tokenizer = load_tokenizer(experiment.model, experiment.method.head)
    rows = _held_out(experiment, run, tokenizer)

    def rival(name: str) -> Callable[[], Contender]:
        if name == MAJORITY:
            return partial(_always, rows.most_frequent)
        return partial(_asked, experiment, rows.labels) if name == "base" else partial(_version, name, rows, experiment)

    own = partial(_labelling, WINNER, what, staged.weights, staged.manifest, rows, tokenizer)
    return _done(experiment, rows, tokenizer, [*map(rival, rivals), own])


def numbers_of(results: Results, run: Run) -> dict[str, Any]:
    """The part of evaluation.json that is about the labels."""
    told_of = results.to_dict(WINNER)
    told_of["tasks"][LABELS]["chose"] = len(run.trials()) > 1
    return told_of


def why_not_asked(experiment: Experiment, labels: Sequence[str]) -> str | None:
    """Why the base cannot be asked for labels, as a part of a sentence; None where it can."""
    if len(labels) > NAMED:
        return f"a base is told of at most {NAMED} labels, and there are {len(labels)}"
    return None if _writes(experiment) else f"{experiment.model.name_or_path} writes no text"


def _done(experiment: Experiment, rows: HeldOut, tokenizer: Any, makers: Sequence[Callable[[], Contender]]) -> Results:
    task = _task(experiment, rows, tokenizer)
    return done([TaskResult(task, rows.questions, experiment.evaluation.seed)], makers)


def _held_out(experiment: Experiment, run: Run, tokenizer: Any) -> HeldOut:
    begun = str(run.resolved.get("data", {}).get("hash"))
    data, _ = prepare_again(experiment.data, experiment.method.rows, tokenizer, begun)
    most = READ // len(data.report.labels) if _is_asked(experiment, data.report.labels) else ROWS
    count = min(ROWS, most, len(data.eval))
    some = data.eval.select([place * len(data.eval) // count for place in range(count)])
    labels, ids = data.report.labels, [list(row) for row in some["input_ids"]]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    asked = [
        Question(({"role": "user", "content": text},), labels[label])
        for text, label in zip(texts, some["labels"], strict=True)
    ]
    return HeldOut(labels, ids, asked)


def _task(experiment: Experiment, rows: HeldOut, tokenizer: Any) -> TaskSection:
    labels, longest = list(rows.labels), max(len(tokenizer(label)["input_ids"]) for label in rows.labels)
    return TaskSection.model_validate(
        {
            "name": LABELS,
            "data": str(experiment.data.eval or "the rows that data.eval_split holds out"),
            "metrics": [{"type": "accuracy", "labels": labels}, {"type": "f1_macro", "labels": labels}],
            "max_new_tokens": longest + SPARE,
            "instructions": f"Which label fits the text? Answer with the label alone: {', '.join(labels)}.",
        }
    )


def _contenders(
    experiment: Experiment, run: Run, trial: Trial, rows: HeldOut, tokenizer: Any
) -> Iterator[Callable[[], Contender]]:
    yield partial(_always, rows.most_frequent)
    if _is_asked(experiment, rows.labels):
        yield partial(_asked, experiment, rows.labels)
    for name, one in ((WINNER, trial), *((seed_name(seed), one) for seed, one in replicas_of(run, trial.id).items())):
        bring_weights(run, one)
        yield partial(_labelling, name, f"trial {one.id}", weights_of(one), one.manifest, rows, tokenizer)


def _always(label: str) -> Contender:
    """Whoever gives each text the same label."""
    what = f"always '{label}', the most frequent label of these rows"
    return Contender(MAJORITY, what, lambda task, questions: [Answer(label)] * len(questions))


def _is_asked(experiment: Experiment, labels: Sequence[str]) -> bool:
    return "base" in experiment.evaluation.against and why_not_asked(experiment, labels) is None


def _asked(experiment: Experiment, labels: Sequence[str]) -> Contender:
    """The base as a language model, told the labels: it says the likeliest one. One whose likelihoods are not computed
    here (`why_not_drafted`) writes its answer."""
    loaded = Contenders(experiment.data, experiment.model).base()
    what = f"{experiment.model.name_or_path.rpartition('/')[2]}, told the labels"
    if why_not_drafted(loaded.model) is not None:
        return loaded.contender("base", what, lambda task: told(task.instructions, as_it_is))
    return Contender("base", what, partial(_likeliest, loaded, labels))


def _likeliest(loaded: Loaded, labels: Sequence[str], task: TaskSection, questions: Sequence[Question]) -> list[Answer]:
    """The label that is the likeliest whole answer, with the token that ends it, to each question."""
    asked = prompted(told(task.instructions, as_it_is), questions)
    every = [replace(question, reference=label) for question in asked for label in labels]
    read = answers(loaded.model, Writer(loaded.tokenizer, loaded.template, 1, scores=True), every)
    found = []
    for row, question in enumerate(asked):
        own = read[row * len(labels) : (row + 1) * len(labels)]
        best = min(range(len(labels)), key=lambda place: own[place].nll or 0.0)
        found.append(Answer(labels[best], seconds=sum(one.seconds for one in own), sent=question.prompt))
    return found


def _writes(experiment: Experiment) -> bool:
    names = load_config(experiment.model).architectures or ()
    return experiment.model.init == "pretrained" and any(str(name).endswith(WRITES) for name in names)


def _version(name: str, rows: HeldOut, experiment: Experiment) -> Contender:
    """A version of the registry, which reads the texts by its own tokenizer. Raises InputError for one that does not
    know these labels."""
    version = registry.resolve(name.removeprefix(REGISTRY))
    registry.check_loadable(version)
    labels = tuple(version.manifest.get("labels") or ())
    if set(labels) != set(rows.labels):
        known = ", ".join(labels) or "none"
        raise InputError(f"{version.id} knows the labels {known}, and these rows have {', '.join(rows.labels)}.")
    tokenizer = load_tokenizer(ModelSection(name_or_path=str(version.weights)), experiment.method.head)
    texts = [question.prompt[-1]["content"] for question in rows.questions]
    ids = tokenizer(texts, truncation=True, max_length=experiment.data.max_length)["input_ids"]
    there = replace(rows, labels=labels, ids=ids)
    return _labelling(name, version.id, version.weights, version.manifest, there, tokenizer)


def _labelling(
    name: str, what: str, weights: Path, manifest: dict[str, Any], rows: HeldOut, tokenizer: Any
) -> Contender:
    """Trained weights, with their head."""
    base = base_of(manifest, what)
    if weights.name == "model":
        base = base.model_copy(update={"name_or_path": str(weights), "gguf_file": None, "revision": None})
    model = load_model(base, "sequence_classification", rows.labels)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # where it finds a text's end
    if weights.name != "model":
        model = beside_base(model, weights, what)
    model = ready(model)
    return Contender(name, what, lambda task, questions: [Answer(label) for label in _labels(model, rows, tokenizer)])


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _labels(model: Any, rows: HeldOut, tokenizer: Any, together: int = 16) -> Iterator[str]:
    """The likeliest label of each row."""
    padded = DataCollatorWithPadding(tokenizer)
    for start in range(0, len(rows.ids), together):
        batch = padded([{"input_ids": ids} for ids in rows.ids[start : start + together]]).to(model.device)
        yield from (rows.labels[number] for number in model(**batch)["logits"].argmax(-1).tolist())
