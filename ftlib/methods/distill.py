"""Distillation: one function a kind that builds the student's trainer, and what is checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import DataCollatorWithPadding, TrainingArguments, set_seed

from ftlib.config import Distill, Experiment
from ftlib.data import prepare
from ftlib.data.tokenize import Encoding
from ftlib.errors import ConfigError
from ftlib.methods import sft
from ftlib.methods.arguments import training_arguments
from ftlib.methods.distillation import completions, quality
from ftlib.methods.distillation.objectives import Feature, Logit, Projections, Relation, layer_map
from ftlib.methods.distillation.peer import Mutual
from ftlib.methods.distillation.targets import Batch, Reader, Targets, Task, targets_key, write_targets
from ftlib.methods.teacher import Teacher, cached, check_tokenizers, same_tokenizer, teacher_of
from ftlib.models.base import load_config, load_tokenizer
from ftlib.run.layout import CHECKPOINT

if TYPE_CHECKING:
    from transformers import Trainer

    from ftlib.data import Prepared


def trainer(experiment: Experiment, model: Any, tokenizer: Any, data: Prepared, output_dir: Path) -> Trainer:
    """The student's trainer. What the teacher computes once is computed here, unless it is in the cache."""
    lesson = Lesson(experiment, model, tokenizer, data, output_dir)
    built = KINDS[lesson.method.kind](lesson)
    # Whether the teacher ran or the cache was there: the student draws the same numbers.
    set_seed(experiment.train.seed)
    return built


@dataclass
class Lesson:
    """All that the kinds build from, and the parts that they share."""

    experiment: Experiment
    student: Any
    tokenizer: Any
    data: Prepared
    output_dir: Path

    def __post_init__(self) -> None:
        method = self.experiment.method
        assert isinstance(method, Distill)
        self.method = method
        self.remote = method.remote
        if self.remote:
            return
        self.teacher = teacher_of(self.experiment)
        theirs = self.teacher.tokenizer()
        check_tokenizers(self.tokenizer, theirs, method)
        self.teacher.check(method.head)
        self.alike = same_tokenizer(self.tokenizer, theirs)
        self.reader = Reader(self.tokenizer, None if self.alike else theirs)
        self.task, self.students_task = self._tasks()

    def _tasks(self) -> tuple[Task, Task]:
        """Where the teacher's logits count, and where the student's: columns in the same order."""
        if self.method.task == "language":  # models pad their vocabularies: both are cut to the tokenizer's tokens
            task = Task(classify=False, classes=len(self.tokenizer))
            return task, task
        ours, theirs = self.data.report.labels, self.teacher.labels
        unnamed = theirs == tuple(f"LABEL_{number}" for number in range(len(theirs)))
        if len(ours) != len(theirs) or not (unnamed or set(ours) == set(theirs)):
            raise ConfigError(
                f"method.teacher: it knows the classes {', '.join(theirs)}, but the data has {', '.join(ours)}: "
                "use a teacher that was trained on the same labels."
            )
        order = range(len(ours)) if unnamed else [theirs.index(name) for name in ours]
        return Task(True, tuple(order)), Task(True, tuple(range(len(ours))))

    @cached_property
    def model(self) -> Any:
        """The teacher, loaded when something has to be computed. Forget it where the trainer does not need it."""
        return self.teacher.load(self.method.head, self.device)

    @cached_property
    def device(self) -> torch.device:
        """The worker's. `TrainingArguments` would take it from a trainer that is already built: ask before, or set
        it."""
        return TrainingArguments(**training_arguments(self.experiment, self.output_dir)).device

    def forget_model(self) -> None:
        """Frees the teacher's memory."""
        self.__dict__.pop("model", None)

    def build(self) -> Any:
        """The trainer of SFT or of classification, with a place for the teacher."""
        from ftlib.methods.distillation.trainers import ClassifyDistiller, LanguageDistiller

        if self.method.task == "language":
            arguments = (self.experiment, self.student, self.tokenizer, self.data, self.output_dir)
            built: Any = sft.trainer(*arguments, kind=LanguageDistiller)
            self.device = built.args.device
            return built
        options = training_arguments(self.experiment, self.output_dir)
        built = ClassifyDistiller(
            labels=self.data.report.labels,
            class_weights=None,
            label_smoothing=0.0,
            model=self.student,
            args=TrainingArguments(**options, label_names=["labels"]),
            data_collator=DataCollatorWithPadding(self.tokenizer),
            train_dataset=self.data.train,
            eval_dataset=self.data.eval,
            processing_class=self.tokenizer,
        )
        self.device = built.args.device
        return built

    def batches(self, rows: Any, collator: Callable[[list[Any]], Any]) -> Iterator[Any]:
        """(what the teacher reads, the student's batch), in the order of the rows."""
        size = self.experiment.train.per_device_eval_batch_size
        for start in range(0, len(rows), size):
            examples = rows.select(range(start, min(start + size, len(rows)))).to_list()
            batch: Batch = {name: part.to(self.device) for name, part in dict(collator(examples)).items()}
            yield self.reader(batch), batch

    def remember(self, built: Any, collator: Any, rows: Any = None) -> None:
        """Gives the trainer its `facts`: what the teacher is, and what of it the student has kept."""
        rows = self.data.eval if rows is None else rows
        classify = self.method.task == "classify"

        def build(folder: Path) -> None:
            quality.write_quality(folder, self.model, self.task, self.batches(rows, collator), self.alike)

        size = self.experiment.train.per_device_eval_batch_size
        parts = quality.key(self.teacher.key(), self.data.hash, size, self.method.rows)
        known = quality.read_quality(cached(parts, build)) if self.alike or classify else {}
        whole = self.experiment.scale.strategy in ("single", "ddp")  # a forward of a sharded student needs all workers
        batch = (lambda: next(self.batches(rows, collator))[1]) if whole and self.alike else None
        others = getattr(built, "facts", dict)
        told = {"kind": self.method.kind, **self.teacher.identity()}

        def facts() -> dict[str, Any]:
            metrics: dict[str, Any] = next((row for row in reversed(built.state.log_history) if "eval_loss" in row), {})
            return {**others(), "teacher": {**told, **quality.retained(known, metrics, built.model, classify, batch)}}

        built.facts = facts


def logit(lesson: Lesson) -> Any:
    """The teacher's distribution, kept on disk. `self`: the same, from an earlier generation of the same model
    (born-again networks, Furlanello et al. 2018, arXiv:1805.04770)."""
    built = lesson.build()
    collator, rows, task = built.data_collator, lesson.data.train, lesson.task

    def build(folder: Path) -> None:
        write_targets(folder, lesson.model, task, lesson.batches(rows, collator), top_k, task.positions(rows))

    top_k = lesson.method.top_k if lesson.method.task == "language" else None  # classes are few
    targets = Targets.open(cached(targets_key(lesson.teacher.key(), lesson.data.hash, top_k, task.classes), build))
    lesson.remember(built, collator)
    lesson.forget_model()
    built.learn_from(Logit(lesson.method), lesson.method.alpha, lesson.students_task, targets)
    return built


def feature(lesson: Lesson) -> Any:
    """The teacher's hidden states, through a learned projection where it is wider or narrower."""
    built = lesson.build()
    student, theirs = lesson.student.config.get_text_config(), lesson.model.config.get_text_config()
    layers = layer_map(lesson.method, student.num_hidden_layers, theirs.num_hidden_layers)
    if student.hidden_size != theirs.hidden_size:
        set_seed(lesson.experiment.train.seed)  # the projections are drawn from it
        Projections(layers, student.hidden_size, theirs.hidden_size).to(lesson.device).attach(built.model)
    lesson.remember(built, built.data_collator)
    objective = Feature(lesson.method, lesson.model, lesson.reader, layers)
    built.learn_from(objective, lesson.method.alpha, lesson.students_task, None)
    return built


def relation(lesson: Lesson) -> Any:
    """How the teacher's examples lie to each other."""
    built = lesson.build()
    lesson.remember(built, built.data_collator)
    objective = Relation(lesson.method, lesson.model, lesson.reader)
    built.learn_from(objective, lesson.method.alpha, lesson.students_task, None)
    return built


def mutual(lesson: Lesson) -> Any:
    """The teacher learns too. What it was worth before is in the manifest; it is not kept."""
    built = lesson.build()
    lesson.remember(built, built.data_collator)
    peer = lesson.model.requires_grad_(True)
    lesson.forget_model()
    objective = Mutual(lesson.method, peer, lesson.reader, lesson.task)
    built.learn_from(objective, lesson.method.alpha, lesson.students_task, None)
    built.learn_beside(peer, lesson.output_dir.parent / CHECKPOINT)
    return built


def sequence(lesson: Lesson) -> Any:
    """SFT on what the teacher writes for the training prompts; the evaluation rows keep their own answers."""
    method, experiment = lesson.method, lesson.experiment
    prompts = prepare(experiment.data, "prompts", lesson.tokenizer)
    if lesson.remote:
        identity: dict[str, Any] = {"url": method.teacher, "name": method.teacher_name}
        ask = completions.remote(method)
    else:
        identity = lesson.teacher.key()
        size = experiment.train.per_device_eval_batch_size
        ask = completions.local(lambda: lesson.model, lesson.teacher.tokenizer(), method, size)
    written = completions.write_completions(method, prompts, identity, ask)
    encoding = Encoding(lesson.tokenizer, experiment.data.max_length, prompts.chat_template is None)
    rows = completions.as_rows(written, prompts, encoding)
    lesson.data = replace(lesson.data, train=rows)
    built = sft.trainer(experiment, lesson.student, lesson.tokenizer, lesson.data, lesson.output_dir)
    told = {"prompts": len(written.completions), "failed": written.failed, "first_failure": written.first_failure}
    if lesson.remote:
        others: Callable[[], dict[str, Any]] = partial(dict, teacher={"kind": method.kind, **identity})
    else:
        lesson.remember(built, built.data_collator)
        lesson.forget_model()
        others = built.facts
    built.facts = lambda: {"teacher": {**others()["teacher"], **told}}
    return built


def on_policy(lesson: Lesson) -> Any:
    """The teacher corrects what the student writes."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from ftlib.methods.distillation.on_policy import make_trainer

    experiment, tokenizer = lesson.experiment, lesson.tokenizer
    answers = prepare(experiment.data, "answers", tokenizer).eval
    built = make_trainer(
        experiment, lesson.student, lesson.model, tokenizer, lesson.data.train, answers, lesson.output_dir
    )
    lesson.remember(built, DataCollatorForLanguageModeling(tokenizer.pad_token_id), rows=answers)
    return built


KINDS: dict[str, Callable[[Lesson], Any]] = {
    "logit": logit,
    "self": logit,
    "feature": feature,
    "relation": relation,
    "mutual": mutual,
    "sequence": sequence,
    "on_policy": on_policy,
}


# --- before anything starts ----------------------------------------------------------------------------------------


def check(experiment: Experiment) -> None:
    """Raises ConfigError for a teacher that cannot be found, or cannot teach this student in this way."""
    method = experiment.method
    assert isinstance(method, Distill)
    tokenizer = load_tokenizer(experiment.model, method.head)
    if method.kind == "sequence":
        prepare(experiment.data, "prompts", tokenizer)
    if method.remote:
        return
    teacher = teacher_of(experiment)
    check_tokenizers(tokenizer, teacher.tokenizer(), method)
    teacher.check(method.head)
    _check_shapes(experiment, teacher)


def _check_shapes(experiment: Experiment, teacher: Teacher) -> None:
    method: Any = experiment.method
    ours, theirs = load_config(experiment.model).get_text_config(), load_config(teacher.model).get_text_config()
    if method.kind == "self":
        shape = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for key in shape:
            if getattr(ours, key, None) != getattr(theirs, key, None):
                raise ConfigError(
                    f"method.teacher: 'self' learns from an earlier generation of the same model, but {key} is "
                    f"{getattr(theirs, key, None)} there and {getattr(ours, key, None)} here: use kind: logit."
                )
    if method.kind == "feature":
        try:
            layer_map(method, ours.num_hidden_layers, theirs.num_hidden_layers)
        except ValueError as error:
            raise ConfigError(f"method.layer_map: it puts {error}.") from None
    if method.kind == "on_policy" and theirs.vocab_size < ours.vocab_size:
        raise ConfigError(
            f"method.teacher: its vocabulary ({theirs.vocab_size}) is smaller than the student's ({ours.vocab_size}), "
            "which TRL's on-policy loss cannot compare: use kind: logit."
        )
