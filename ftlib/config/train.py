"""`train:` and `scale:` how long, how fast, on what. The names are `TrainingArguments`' and Ray's `ScalingConfig`'s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from ftlib.config.section import Section
from ftlib.errors import nearest

SchedulerName = Literal[
    "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
# The arguments that transformers' schedules take; the other schedules take none.
SCHEDULE_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "cosine_with_min_lr": ("min_lr", "min_lr_rate", "num_cycles"),
    "inverse_sqrt": ("timescale",),
    "warmup_stable_decay": ("num_decay_steps", "num_stable_steps", "min_lr_ratio", "num_cycles"),
}

Rounding = Literal["int4", "int8", "fp8"]  # as `ftlib export --to` calls them


class TrainSection(Section):
    """`max_steps` wins over `num_train_epochs`; a float `warmup_steps` below 1 is a ratio (as in transformers 5)."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """The highest learning rate of the schedule. LoRA needs about ten times the rate of full fine-tuning."""
    num_train_epochs: float = Field(default=1.0, gt=0)
    """Passes over all training rows. It can be a fraction: 0.5."""
    max_steps: int | None = Field(default=None, ge=1)
    """The number of optimizer steps. It wins over num_train_epochs. null trains for num_train_epochs."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Rows that one worker computes at once. With methods grpo and rloo it counts completions."""
    per_device_eval_batch_size: int = Field(default=8, ge=1)
    """Rows that one worker evaluates at once. With methods grpo and rloo it counts completions."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches whose gradients are added up for one optimizer step."""
    lr_scheduler_type: SchedulerName = "cosine"
    """How the learning rate changes after the warmup, by transformers' names."""
    lr_scheduler_kwargs: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Arguments of the schedule. cosine_with_min_lr needs min_lr, or min_lr_rate: {min_lr_rate: 0.1} ends at a tenth of
    learning_rate. warmup_stable_decay needs num_decay_steps, and takes num_stable_steps and min_lr_ratio.
    cosine_with_restarts takes num_cycles, and inverse_sqrt takes timescale."""
    warmup_steps: float = Field(default=0.0, ge=0)
    """Optimizer steps in which the learning rate rises from 0. A value below 1 is a share of all steps."""
    layer_lr_decay: float = Field(default=1.0, gt=0, le=1)
    """A layer's learning rate is that of the layer above it times this number (ELECTRA, arXiv:2003.10555). The highest
    layer that is trained has learning_rate, and the embeddings have the lowest rate. 1.0 gives all layers one rate."""
    unfreeze_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps after which one more layer is trained, from the top down (gradual unfreezing, ULMFiT,
    arXiv:1801.06146). The top is the head, or the highest layer where no head is trained. null trains all from the
    start."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay: how strongly weights are drawn to 0."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """The highest norm of a gradient. A longer gradient is scaled down to it. 0 scales none."""
    optim: str = "adamw_torch"
    """The optimizer, by the names of TrainingArguments: adamw_torch, adafactor, paged_adamw_8bit and others."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """The decay of Adam's mean of gradients. Nearer to 1, it follows the latest gradient more slowly."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """The decay of Adam's mean of squared gradients. Nearer to 1, it follows the latest gradient more slowly."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """A small number that keeps Adam from dividing by 0."""
    optim_args: str | None = None
    """More arguments of the optimizer, as one text: "rank=64, update_proj_gap=100"."""
    optim_target_modules: str | list[str] | None = None
    """The linear layers that GaLore or APOLLO works on: all-linear, a list of names, or a regular expression. Only
    these optimizers take it, and they need it."""
    bf16: bool | None = None
    """Compute in bfloat16 (mixed precision). null does so on a GPU that has bfloat16."""
    tf32: bool | None = None
    """Multiply float32 numbers as TF32, rounded to 10 bits, on the tensor cores of a GPU. null is torch's own
    choice."""
    dataloader_num_workers: int = Field(default=0, ge=0)
    """Processes that read batches ahead. 0 reads them in the trainer's own process."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time. TrainingArguments call it
    gradient_checkpointing."""
    neftune_noise_alpha: float | None = Field(default=None, gt=0)
    """The size of the noise that is added to embeddings in training (NEFTune, arXiv:2310.05914). 5 is usual. null adds
    none."""
    shifted_attention: int | None = Field(default=None, ge=2, multiple_of=2)
    """Train with attention in groups of so many tokens, an even number; in half of the heads, the groups are shifted by
    half (S2-Attn of LongLoRA, arXiv:2309.12307). A quarter of max_length is usual. Evaluations and answers have full
    attention. null always has full attention."""
    qat: Rounding | None = None
    """Quantization-aware training (arXiv:1712.05877): train and evaluate with the weights of the linear layers rounded
    as ftlib export --to int4, int8 or fp8 rounds them. The unrounded weights are trained and saved. It needs torchao:
    pip install 'ftlib[quantize]'. null rounds nothing."""
    logging_steps: int = Field(default=10, ge=1)
    """Optimizer steps between two rows of the training loss in metrics.jsonl."""
    eval_strategy: Literal["steps", "epoch", "end"] = "epoch"
    """When a trial is evaluated: every eval_steps steps (steps), after each epoch (epoch), or at the end alone (end).
    The end and the scheduler's rungs are always evaluated."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between two evaluations. It is set with eval_strategy: steps, and only there."""
    evals_per_epoch: int | None = Field(default=None, ge=1)
    """Evaluations in each epoch, evenly spread. It needs eval_strategy: epoch. null is one, at the end of the epoch."""
    save_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between two checkpoints that are written besides those of the evaluations. null writes no
    others."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """End the trial after so many evaluations in a row without improvement of the metric. null never ends it early."""
    early_stopping_threshold: float = Field(default=0.0, ge=0)
    """How much better than the best the metric must be to count as an improvement."""
    seed: int = Field(default=42, ge=0)
    """The seed of new weights, of the order of rows, and of dropout."""

    @model_validator(mode="after")
    def _schedule_takes_its_arguments(self) -> TrainSection:
        told, known = self.lr_scheduler_kwargs, SCHEDULE_ARGUMENTS.get(self.lr_scheduler_type, ())
        for name in told:
            if name not in known:
                takes = f"takes {', '.join(known)}" if known else "takes none"
                raise ValueError(
                    f"lr_scheduler_kwargs.{name}: lr_scheduler_type '{self.lr_scheduler_type}' {takes}."
                    f"{nearest(name, known)}".rstrip(".")
                )
        limits = {"min_lr": self.learning_rate, "min_lr_rate": 1.0, "min_lr_ratio": 1.0}
        for name in sorted(limits.keys() & told.keys()):
            if told[name] > limits[name]:
                raise ValueError(f"lr_scheduler_kwargs.{name} is {told[name]:g}, but is at most {limits[name]:g}")
        if self.lr_scheduler_type == "cosine_with_min_lr" and ("min_lr" in told) == ("min_lr_rate" in told):
            raise ValueError(
                "lr_scheduler_type 'cosine_with_min_lr' needs its lowest rate, once: lr_scheduler_kwargs: "
                "{min_lr_rate: 0.1}, or {min_lr: ...}"
            )
        if self.lr_scheduler_type == "warmup_stable_decay" and "num_decay_steps" not in told:
            raise ValueError(
                "lr_scheduler_type 'warmup_stable_decay' needs lr_scheduler_kwargs: {num_decay_steps: ...}, the steps "
                "in which the rate falls"
            )
        return self

    @property
    def schedule_arguments(self) -> dict[str, float]:
        """`lr_scheduler_kwargs` with a lowest rate as a share of `learning_rate`: transformers would ask the optimizer
        for its rate, and LoRA-FA's has none of its own."""
        told = dict(self.lr_scheduler_kwargs)
        if "min_lr" in told:
            told["min_lr_rate"] = told.pop("min_lr") / self.learning_rate
        return told

    @model_validator(mode="after")
    def _steps_need_a_number(self) -> TrainSection:
        if self.eval_strategy == "steps" and self.eval_steps is None:
            raise ValueError("eval_strategy is 'steps', so eval_steps must say how many: for example eval_steps: 50")
        if self.eval_strategy != "steps" and self.eval_steps is not None:
            raise ValueError(
                f"eval_steps has no effect while eval_strategy is '{self.eval_strategy}': set it to 'steps'"
            )
        if self.eval_strategy != "epoch" and self.evals_per_epoch is not None:
            raise ValueError(
                f"evals_per_epoch has no effect while eval_strategy is '{self.eval_strategy}': set it to 'epoch'"
            )
        if self.early_stopping_patience is not None and self.eval_strategy == "end":
            raise ValueError(
                "early_stopping_patience has no effect while eval_strategy is 'end': set it to 'epoch' or 'steps'"
            )
        if self.warmup_steps > 1 and not float(self.warmup_steps).is_integer():
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}: below 1 it is a ratio, above 1 a whole number of steps"
            )
        return self


# The keys that one strategy alone reads, with their defaults; for the others they are null.
STRATEGY_KEYS: dict[str, dict[str, Any]] = {
    "fsdp": {"reshard_after_forward": True, "cpu_offload": False, "transformer_layer_cls_to_wrap": None},
    "deepspeed": {"stage": 2, "offload": "none", "nvme_path": None, "deepspeed": {}},
}
# DeepSpeed's JSON and the key of ours that says the same.
SAID_ELSEWHERE = {
    "train_micro_batch_size_per_gpu": "train.per_device_train_batch_size",
    "train_batch_size": "train.per_device_train_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "gradient_clipping": "train.max_grad_norm",
    "optimizer": "train.optim",
    "scheduler": "train.lr_scheduler_type",
    "bf16": "train.bf16",
    "fp16": "train.bf16",
}


PATH_OR_MAPPING: dict[str, Any] = {"type": ["object", "string", "null"]}


class ScaleSection(Section):
    """How one trial is spread: workers, what each takes from the cluster, and what each of them holds.

    `single` and `ddp` hold the whole model; `fsdp` (PyTorch's FSDP2) and `deepspeed` (ZeRO) hold a part of it.
    """

    strategy: Literal["single", "ddp", "fsdp", "deepspeed"] = "single"
    """How the model of one trial is spread. single has one worker. With ddp each worker holds the whole model. With
    fsdp (PyTorch's FSDP2) and deepspeed (ZeRO) each worker holds a part of it."""
    engine: Literal["auto", "trainer"] = "auto"
    """What computes a trial. auto takes the engine of packs where it can (docs/packs.md), also for one trial. trainer
    always takes the method's trainer, of TRL or transformers."""
    num_workers: int = Field(default=1, ge=1)
    """The workers (processes) of one trial. single has 1; ddp and fsdp have 2 or more."""
    resources_per_worker: dict[str, float] = Field(default_factory=lambda: {"CPU": 1.0})
    """What one worker takes of the Ray cluster: {CPU: 4, GPU: 1}. A GPU is used only where it is named here."""
    max_failures: int = Field(default=1, ge=0)
    """How often a trial is started again from its checkpoint after a crash. The loss of a machine is no crash."""
    report_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds. A trial that writes no row of metrics for so long is ended, and started again as after a crash. Choose
    more than the base takes to load. null waits without end."""
    price_per_hour: float | dict[str, float] | None = None
    """What one hour of a worker costs: a number, or a price for each resource, {GPU: 1.2, CPU: 0.05}. The currency is
    yours. null counts no costs."""
    reshard_after_forward: bool | None = None
    """For strategy fsdp: free a layer's gathered weights after its forward pass, and gather them again for the backward
    pass. false is faster and takes more memory."""
    cpu_offload: bool | None = None
    """For strategy fsdp: keep the weights in the memory of the CPU while they are not used. It needs a GPU."""
    transformer_layer_cls_to_wrap: str | list[str] | None = None
    """For strategy fsdp: the classes of the layers that are sharded one by one. null is the model's own layers."""
    stage: Literal[1, 2, 3] | None = None
    """For strategy deepspeed: what is spread over the workers. 1 is the optimizer, 2 also the gradients, 3 also the
    weights."""
    offload: Literal["none", "cpu", "nvme"] | None = None
    """For strategy deepspeed: where the spread state is kept: beside the model (none), in the memory of the CPU (cpu),
    or on a disk (nvme, with stage 3)."""
    nvme_path: str | None = None
    """For strategy deepspeed with offload: nvme: the folder of a fast disk."""
    deepspeed: Annotated[dict[str, Any] | None, WithJsonSchema(PATH_OR_MAPPING)] = None
    """For strategy deepspeed: other keys of DeepSpeed's JSON, or the path of such a file. What a key of this file says
    is not repeated here."""

    @model_validator(mode="before")
    @classmethod
    def _keys_of_the_strategy(cls, tree: Any) -> Any:
        """Fills in the defaults of the chosen strategy's own keys; refuses the keys of another one."""
        if not isinstance(tree, dict):
            return tree
        tree, strategy = dict(tree), tree.get("strategy", "single")
        for owner, keys in STRATEGY_KEYS.items():
            for key in keys:
                if owner != strategy and tree.get(key) is not None:
                    raise ValueError(
                        f"{key} has no effect with strategy '{strategy}': use strategy: {owner}, or drop it"
                    )
        tree["deepspeed"] = _read_json(tree.get("deepspeed"))
        stage = _zero(tree["deepspeed"]).get("stage")
        if stage is not None and tree.get("stage") not in (None, stage):
            raise ValueError(f"stage is {tree['stage']}, but deepspeed.zero_optimization.stage is {stage}: drop one")
        own = STRATEGY_KEYS.get(strategy, {}) | ({"stage": stage} if stage is not None else {})
        return tree | {key: default for key, default in own.items() if tree.get(key) is None}

    @model_validator(mode="after")
    def _workers_fit_strategy(self) -> ScaleSection:
        if self.strategy == "single" and self.num_workers != 1:
            raise ValueError(f"num_workers is {self.num_workers}, but strategy 'single' has one: use strategy: ddp")
        if self.strategy in ("ddp", "fsdp") and self.num_workers < 2:
            raise ValueError(
                f"strategy '{self.strategy}' needs num_workers of 2 or more: use strategy: single for one worker"
            )
        if self.cpu_offload and not self.use_gpu:
            raise ValueError(
                "cpu_offload moves weights from a GPU to its CPU, but resources_per_worker has no GPU: drop it"
            )
        if any(amount < 0 for amount in self.resources_per_worker.values()):
            raise ValueError(f"resources_per_worker must not be negative, but is {self.resources_per_worker}")
        return self

    @model_validator(mode="after")
    def _deepspeed_fits(self) -> ScaleSection:
        for key, value in (self.deepspeed or {}).items():
            if key in SAID_ELSEWHERE and value != "auto" and not _is_auto(value):
                raise ValueError(f"deepspeed.{key} is said by {SAID_ELSEWHERE[key]}: set that, and drop it here")
        if self.offload == "nvme" and not self.nvme_path:
            raise ValueError("offload 'nvme' needs nvme_path, the folder of a fast disk: for example /local_nvme")
        if self.offload != "nvme" and self.nvme_path:
            raise ValueError(f"nvme_path has no effect while offload is '{self.offload}': set offload: nvme")
        if self.offload == "nvme" and self.stage != 3:
            raise ValueError(f"offload 'nvme' needs stage 3, but stage is {self.stage}: set stage: 3, or offload: cpu")
        return self

    @property
    def worker_price(self) -> float | None:
        """What an hour of one worker costs; None where no price is given."""
        price = self.price_per_hour
        if not isinstance(price, dict):
            return price
        return sum(self.resources_per_worker.get(name, 0.0) * rate for name, rate in price.items())

    @property
    def use_gpu(self) -> bool:
        return self.resources_per_worker.get("GPU", 0) > 0


def _read_json(deepspeed: Any) -> Any:
    """The content of a DeepSpeed file where a path is given, so that the run directory holds it."""
    if not isinstance(deepspeed, str):
        return deepspeed
    try:
        return json.loads(Path(deepspeed).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"deepspeed is '{deepspeed}', which is no readable JSON file: {error}") from None


def _zero(deepspeed: Any) -> dict[str, Any]:
    section = deepspeed.get("zero_optimization") if isinstance(deepspeed, dict) else None
    return section if isinstance(section, dict) else {}


def _is_auto(value: Any) -> bool:
    """Whether a section of DeepSpeed's JSON leaves everything that matters to us, as {"enabled": "auto"} does."""
    return isinstance(value, dict) and value.get("enabled") in ("auto", False)
