"""The trainer of a point: its data, its model, the trainer of its method, and the tasks that it does."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, Trainer, set_seed

from ftlib import methods
from ftlib.config import Experiment
from ftlib.data import Prepared, load_prepared, prepare
from ftlib.errors import TrialError
from ftlib.evaluation.trial_tasks import TrialTask, trial_tasks
from ftlib.models.adapters.build import add_adapter, calibration, kept_precision, make_optimizer
from ftlib.models.adapters.state import state_callbacks
from ftlib.models.base import load_model, load_tokenizer
from ftlib.models.rounded import round_weights
from ftlib.models.shifted_attention import shift_attention
from ftlib.models.strategies import strategy_of
from ftlib.run.context import EvalPart, Setting
from ftlib.run.directory import Trial
from ftlib.training.by_depth import Unfreezing, lower_rates
from ftlib.training.text_bits import check_same_texts
from ftlib.training.trainer_callback import OURS

Load = Callable[[Experiment, Prepared, Any], Any]  # of the tokenizer last


def numbers(trainer: Trainer) -> dict[str, Any]:
    """What an evaluation of the trainer's model gives."""
    return {key: value for key, value in trainer.evaluate().items() if key not in OURS}


@cache
def _imported(method: str) -> ModuleType:
    """A method's module. What the libraries have made by then stays for good, and is no more looked at by collections:
    accelerate and this file collect with each trial, which took 0.8 s of one on a small model."""
    module = methods.load(method)
    gc.collect()
    gc.freeze()
    return module


def build(experiment: Experiment, setting: Setting, trial: Trial, load: Load | None = None) -> tuple[Trainer, Prepared]:
    """The trainer and its data. `trainer.evaluated_on(part)` sets the rows that it is evaluated on; these are all.
    `load` gives the model, without it one that is to be trained."""
    method = _imported(experiment.method.type)
    gc.collect()  # an actor that is used again still holds the last trial's cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    tokenizer = load_tokenizer(experiment.model, experiment.method.head)
    data = _data(experiment, setting, tokenizer)
    if data.chat_template:
        tokenizer.chat_template = data.chat_template  # saved with the weights, so that serving uses the same
    set_seed(experiment.train.seed)  # before the model: random weights and adapters are drawn from it
    strategy = strategy_of(experiment)
    strategy.before_loading()
    model = (load or _to_be_trained)(experiment, data, tokenizer)
    staging = trial.path / ".staging"
    with kept_precision(model):
        trainer = method.trainer(experiment, model, tokenizer, data, staging)
    trainer.metric = setting.metric
    tasks = trial_tasks(experiment, setting.metric, setting.judged_by, tokenizer, data.chat_template)
    trainer.optimizer = make_optimizer(experiment, model) or trainer.optimizer
    if experiment.train.layer_lr_decay < 1:
        lower_rates(trainer, experiment.train.layer_lr_decay)
    if experiment.train.unfreeze_steps is not None:
        trainer.add_callback(Unfreezing(model, experiment.train.unfreeze_steps))
    for callback in state_callbacks(experiment.adapter, model, trial.checkpoint):
        trainer.add_callback(callback)
    strategy.prepare(trainer)
    trainer.remove_callback(PrinterCallback)  # it prints what `metrics.jsonl` keeps
    whole = trainer.eval_dataset

    def evaluated_on(part: EvalPart) -> None:
        asked = [task.on(part.questions if task.metric == setting.metric else None) for task in tasks]
        trainer.more = partial(_answered, asked) if asked else None
        rows = part.rows if whole is not None else None
        # The answers that an on-policy student is evaluated on may be fewer than the prompts that are held out.
        trainer.eval_dataset = whole if rows is None else whole.select([row for row in rows if row < len(whole)])

    evaluated_on(EvalPart())
    trainer.evaluated_on = evaluated_on
    return trainer, data


def _to_be_trained(experiment: Experiment, data: Prepared, tokenizer: Any) -> Any:
    """The base with all that is trained of it, or beside it."""
    head = experiment.method.head
    base = load_model(experiment.model, head, data.report.labels)
    base.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # where a classifier finds a text's end
    if experiment.train.shifted_attention is not None:
        shift_attention(base, experiment.train.shifted_attention)
    batches = calibration(data.train, tokenizer.pad_token_id)
    model = add_adapter(base, experiment.adapter, head, batches)
    if experiment.train.qat is not None:
        round_weights(model, experiment.train.qat)
    if experiment.train.activation_checkpointing and isinstance(model, PeftModel):
        model.enable_input_require_grads()
    return model


def _answered(tasks: list[TrialTask], model: Any) -> dict[str, Any]:
    """The numbers of all tasks, done one after the other."""
    return {name: value for task in tasks for name, value in task.numbers(model).items()}


def _data(experiment: Experiment, setting: Setting, tokenizer: Any) -> Prepared:
    """The run's prepared data; a point that changes what the tokens depend on prepares its own, once a content."""

    def basis(point: Experiment) -> Any:
        model = point.model
        tokens = model.name_or_path, model.gguf_file, model.tokenizer, model.special_tokens
        return point.data.model_dump(exclude={"packing"}), tokens

    shared = load_prepared(Path(setting.data))
    if basis(experiment) == basis(setting.experiment()):
        return shared
    own = prepare(experiment.data, experiment.method.rows, tokenizer)
    if basis(experiment)[1] != basis(setting.experiment())[1]:
        check_same_texts(own.eval, tokenizer, shared.eval, load_tokenizer(setting.experiment().model))
    elif own.eval.to_dict() != shared.eval.to_dict():
        raise TrialError("it would be evaluated on other rows than the other trials: make a run of its own.")
    return own
