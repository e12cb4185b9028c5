"""A method that trains nothing (`merge`) has no use for what says how to train: such keys are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftlib.config.rule import Rule
from ftlib.config.sweep import Asha, NoScheduler
from ftlib.config.train import TrainSection

if TYPE_CHECKING:
    from ftlib.config.experiment import Experiment

READ = ("per_device_eval_batch_size", "bf16", "tf32", "dataloader_num_workers", "seed")  # by an evaluation


def why_of_no_use(experiment: Experiment) -> str | None:
    """The first key that would have no effect, as a sentence; None where all have one."""
    if experiment.method.trains:
        return None
    train, defaults = experiment.train, TrainSection()
    keys = [f"train.{key}" for key in TrainSection.model_fields if getattr(train, key) != getattr(defaults, key)]
    swept = [path for path in (experiment.sweep.paths if experiment.sweep else ()) if path.startswith("train.")]
    keys = [key for key in (*keys, *swept) if key.removeprefix("train.") not in READ]
    keys += ["data.replay"] if experiment.data.replay is not None else []
    if not keys:
        return None
    return f"{keys[0]} has no effect: method.type '{experiment.method.type}' trains nothing. Leave it out"


UNTRAINED: tuple[Rule, ...] = (
    Rule(
        "adapter",
        lambda e: not e.method.trains and e.adapter is not None,
        "the adapters that are merged have shapes of their own",
        "adapter: null",
    ),
    Rule(
        "model.quantization",
        lambda e: not e.method.trains and e.model.quantization,
        "a merge is evaluated on a base that is not quantized",
        "quantization: null",
    ),
    Rule(
        "model.init",
        lambda e: not e.method.trains and e.model.init == "random",
        "a merge learns nothing, so random weights would stay random",
        "model.init: pretrained",
    ),
    Rule(
        "scale.strategy",
        lambda e: not e.method.trains and e.scale.strategy != "single",
        "a merge is evaluated by one worker",
        "single",
    ),
    Rule(
        "sweep.scheduler",
        lambda e: not e.method.trains and e.sweep and not isinstance(e.sweep.scheduler, Asha | NoScheduler),
        "a merge is evaluated once, at its end, so nobody can stop it earlier",
        "scheduler: {type: none}",
    ),
    Rule(
        "data.eval_split",
        lambda e: not e.method.trains and not e.data.held_out,
        "all that a merge does with data is to be evaluated on rows that are held out, and 0 holds none out",
        "0.1, or a file in data.eval",
    ),
)
