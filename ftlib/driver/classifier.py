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

from ftlib.config import Experiment, TaskSection
from ftlib.data import prepare_again
from ftlib.driver.contenders import WINNER, Contenders, Loaded, ready, weights_of
from ftlib.driver.seeds import replicas_of, seed_name
from ftlib.evaluation.answers import Writer, answers, why_not_drafted
from ftlib.evaluation.prompting import as_it_is, prompted, told
from ftlib.evaluation.results import Contender, TaskResult, done
from ftlib.evaluation.task import Answer, Question
from ftlib.models.base import base_of, load_config, load_model, load_tokenizer
from ftlib.registry.agreement import beside_base
from ftlib.run.remote_run import bring_weights

if TYPE_CHECKING:
    from ftlib.run.directory import Run, Trial

MAJORITY = "majority"
TASK = "labels"  # what the task is called
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
    task = _task(experiment, rows, tokenizer)
    makers = list(_contenders(experiment, run, run.trial(trial), rows, tokenizer))
    results = done([TaskResult(task, rows.questions, experiment.evaluation.seed)], makers)
    told_of = results.to_dict(WINNER)
    told_of["tasks"][TASK]["chose"] = len(run.trials()) > 1
    return told_of, list(results.lines())


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
            "name": TASK,
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
        yield partial(_labelling, name, one, rows, tokenizer)


def _always(label: str) -> Contender:
    """Whoever gives each text the same label."""
    what = f"always '{label}', the most frequent label of these rows"
    return Contender(MAJORITY, what, lambda task, questions: [Answer(label)] * len(questions))


def _is_asked(experiment: Experiment, labels: Sequence[str]) -> bool:
    return "base" in experiment.evaluation.against and len(labels) <= NAMED and _writes(experiment)


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


def _labelling(name: str, trial: Trial, rows: HeldOut, tokenizer: Any) -> Contender:
    """The weights that a trial has left, with their head."""
    what, weights = f"trial {trial.id}", weights_of(trial)
    base = base_of(trial.manifest, what)
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
