"""What an experiment will take, before anything is started: steps, tokens, parameters, memory."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from ftlib.config import Choice, Classify, Experiment, Range

if TYPE_CHECKING:
    from ftlib.data import DataReport

REACHED = 0.5  # of a matrix product's speed, by a step of training
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTIZED = {"nf4": 0.52, "int8": 1.0}  # bytes a weight, the constants of nf4's blocks included
# Keys that change how many steps or tokens a trial takes.
LENGTH_KEYS = (
    "train.num_train_epochs",
    "train.max_steps",
    "train.per_device_train_batch_size",
    "train.gradient_accumulation_steps",
)
GRACE = 20  # optimizer steps that every trial makes before one is stopped, by default


def steps_and_tokens(experiment: Experiment, data: DataReport) -> tuple[int, int]:
    """(optimizer steps, non-padding tokens) of one trial, counted as transformers' Trainer counts steps."""
    if not experiment.method.trains:
        return 0, 0
    train, an_epoch = experiment.train, steps_an_epoch(experiment, data)
    steps = train.max_steps or max(1, math.ceil(train.num_train_epochs * an_epoch))
    return steps, int(steps / an_epoch * data.train_tokens)


def steps_an_epoch(experiment: Experiment, data: DataReport) -> int:
    """Optimizer steps of one pass over the training rows."""
    rows_a_step = experiment.train.per_device_train_batch_size * experiment.scale.num_workers
    batches = max(1, math.ceil(data.train_rows * experiment.method.passes / rows_a_step))
    return max(1, math.ceil(batches / experiment.train.gradient_accumulation_steps))


def budget(experiment: Experiment, data: DataReport) -> tuple[int, int]:
    """(tokens, steps) that every trial of the sweep reaches: those of its shortest trial."""
    points = [steps_and_tokens(extreme, data) for extreme in extremes(experiment)]
    return min(tokens for _, tokens in points), min(steps for steps, _ in points)


def grace(experiment: Experiment, data: DataReport) -> tuple[int, int]:
    """(tokens, steps) at which every trial of the sweep has made `GRACE` steps, or an epoch where that is shorter."""
    epochs = [steps_an_epoch(extreme, data) for extreme in extremes(experiment)]
    steps = [min(GRACE, epoch) for epoch in epochs]
    tokens = [math.ceil(step / epoch * data.train_tokens) for step, epoch in zip(steps, epochs, strict=True)]
    return max(tokens), max(steps)


def extremes(experiment: Experiment) -> list[Experiment]:
    """The points of the space between whose lengths all others lie; the experiment as it stands where it has none."""
    ends: dict[str, list[Any]] = {}
    for path, dimension in (experiment.sweep.space if experiment.sweep else {}).items():
        if path in LENGTH_KEYS and isinstance(dimension, Range):
            cast = int if experiment.is_integer(path) else float
            ends[path] = [cast(dimension.min), cast(dimension.max)]
        elif path in LENGTH_KEYS and isinstance(dimension, Choice):
            known = [value for value in dimension.choices if value is not None]
            ends[path] = list({*([min(known), max(known)] if known else []), *(set(dimension.choices) - set(known))})
    keys = [path.removeprefix("train.") for path in ends]
    sections = (dict(zip(keys, values, strict=True)) for values in product(*ends.values()))
    return [
        experiment.model_copy(update={"train": experiment.train.model_copy(update=section)}) for section in sections
    ]


@dataclass(frozen=True)
class Estimate:
    """Parameters are counts; memory is GiB for one worker at the peak of a step."""

    total_parameters: int
    trainable_parameters: int
    steps: int
    tokens: int
    memory_gib: float
    multiplied_parameters: int = 0  # those that a token is multiplied with: embeddings are looked up

    def summary(self) -> str:
        share = self.trainable_parameters / max(self.total_parameters, 1)
        memory = f"{self.memory_gib:.1f} GiB" if self.memory_gib >= 1 else f"{self.memory_gib * 1024:.0f} MiB"
        if not self.steps:
            return f"parameters: {self.total_parameters:,}\na trial:    merges and is evaluated; nothing is trained"
        return (
            f"parameters: {self.total_parameters:,}, of which {self.trainable_parameters:,} ({share:.2%}) are trained\n"
            f"a trial:    {self.steps:,} optimizer steps over about {self.tokens:,} tokens\n"
            f"memory:     about {memory} a worker (weights, gradients, AdamW's state, activations)"
        )


def estimate(experiment: Experiment, data: DataReport) -> Estimate:
    """The cost of one trial. Reads the model's config, not its weights."""
    from ftlib.models.adapters.build import empty_model
    from ftlib.models.base import count_parameters, freeze_body

    shape = empty_model(experiment.model, experiment.adapter, experiment.method.head)
    if isinstance(experiment.method, Classify) and experiment.method.freeze == "encoder":
        freeze_body(shape)
    total, trained = count_parameters(shape)
    config = shape.config
    steps, tokens = steps_and_tokens(experiment, data)
    dtype: str = experiment.model.dtype
    if dtype == "auto":
        dtype = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    # Activations of a transformer layer without checkpointing: about 34 bytes a hidden unit and token at 16 bits
    # (Korthikanti et al. 2022, arXiv:2205.05198, the attention scores left out), one layer's worth with it.
    tokens_held = experiment.train.per_device_train_batch_size * min(data.lengths.max, experiment.data.max_length)
    layers = 1 if experiment.train.activation_checkpointing else getattr(config, "num_hidden_layers", 1)
    width = BYTES.get(dtype, 4)
    activations = 17 * width * tokens_held * getattr(config, "hidden_size", 0) * layers
    logits = 4 * tokens_held * getattr(config, "vocab_size", 0)
    frozen_width = QUANTIZED.get(experiment.model.quantization or "", width)
    plain = _left_plain(experiment, shape)
    weights = (total - trained - plain) * frozen_width + plain * BYTES["float32"] + trained * width
    states = {"weights": weights, "gradients": trained * width}
    states["moments"] = trained * 8  # AdamW's two, in 32 bits
    workers = experiment.scale.num_workers
    held = sum(size / (workers if name in _sharded(experiment) else 1) for name, size in states.items())
    return Estimate(
        total, trained, steps, tokens, (held + activations + logits) / 2**30, total - _looked_up(experiment, config)
    )


def _left_plain(experiment: Experiment, shape: Any) -> int:
    """The experts of a mixture that quantization leaves as they are; PEFT then makes them float32."""
    model = experiment.model
    if model.quantization is None or model.quantize_moe_experts:
        return 0
    return sum(int(part.numel()) for part in shape.parameters() if part.ndim > 2)


def _looked_up(experiment: Experiment, config: Any) -> int:
    """The weights of the input's embeddings, unless they are those of the output too."""
    if experiment.method.head == "causal_lm" and getattr(config, "tie_word_embeddings", False):
        return 0
    return getattr(config, "vocab_size", 0) * getattr(config, "hidden_size", 0)


def seconds_of(experiment: Experiment, found: Estimate) -> float | None:
    """About how long one trial trains here, from the speed of one matrix product; None where it wants a GPU that is not
    here. A forward pass is two operations a weight and token, a backward pass as many for the gradients of inputs, and
    as many again for those of the weights that are trained."""
    import torch

    scale = experiment.scale
    if scale.use_gpu and not torch.cuda.is_available():
        return None
    operations = found.tokens * (4 * found.multiplied_parameters + 2 * found.trainable_parameters)
    cpus = max(1, int(scale.resources_per_worker.get("CPU", 1)))
    speed = _operations_a_second("cuda" if scale.use_gpu else "cpu", cpus)
    return operations / (speed * REACHED * scale.num_workers)


def _operations_a_second(device: str, threads: int, size: int = 1024, times: int = 8) -> float:
    """Operations in a second, measured on a product of float32 matrices."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        matrix = torch.ones(size, size, device=device)
        best = math.inf
        for _ in range(times):  # others may be at work here: the fastest counts
            started = time.perf_counter()
            float((matrix @ matrix)[0, 0])
            best = min(best, time.perf_counter() - started)
        return 2 * size**3 / best
    finally:
        torch.set_num_threads(before)


def _sharded(experiment: Experiment) -> tuple[str, ...]:
    """What is spread over the workers, so that each holds only its part: moments, gradients, weights."""
    scale = experiment.scale
    stage = {"fsdp": 3, "deepspeed": scale.stage or 0}.get(scale.strategy, 0)
    return ("moments", "gradients", "weights")[:stage]
