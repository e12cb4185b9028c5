"""`train:` and `scale:` how long, how fast, on what. The names are `TrainingArguments`' and Ray's `ScalingConfig`'s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, model_validator

from ftlib.config.section import Section

# Schedulers of transformers.SchedulerType that need no further argument.
SchedulerName = Literal["linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt"]


class TrainSection(Section):
    """`max_steps` wins over `num_train_epochs`; a float `warmup_steps` below 1 is a ratio (as in transformers 5)."""

    learning_rate: float = Field(default=2e-4, gt=0)
    """The largest learning rate. LoRA wants about ten times that of full fine-tuning."""
    num_train_epochs: float = Field(default=1.0, gt=0)
    """How often all rows are met."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; wins over num_train_epochs."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Rows a worker computes at once."""
    per_device_eval_batch_size: int = Field(default=8, ge=1)
    """Rows a worker evaluates at once."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches an optimizer step adds up."""
    lr_scheduler_type: SchedulerName = "cosine"
    """How the learning rate falls."""
    warmup_steps: float = Field(default=0.0, ge=0)
    """Steps in which the learning rate rises; below 1 it is a share of all steps."""
    weight_decay: float = Field(default=0.0, ge=0)
    """How strongly weights are drawn to 0."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Longer gradients are cut to this length; 0 cuts none."""
    optim: str = "adamw_torch"
    """The optimizer, by transformers' names."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """How slowly Adam's mean of gradients follows the latest."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """How slowly Adam's mean of squared gradients follows the latest."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Keeps Adam from dividing by 0."""
    optim_args: str | None = None
    """What this optimizer takes besides, as "rank=64, update_proj_gap=100"."""
    optim_target_modules: str | list[str] | None = None
    """GaLore, APOLLO: which linear layers."""
    bf16: bool | None = None
    """Compute in bfloat16; null: where the GPU has it."""
    tf32: bool | None = None
    """float32 products on tensor cores, rounded to 10 bits; null: torch's own choice."""
    dataloader_num_workers: int = Field(default=0, ge=0)
    """Processes that read batches ahead; 0: the trainer itself."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    neftune_noise_alpha: float | None = Field(default=None, gt=0)
    """Noise on embeddings in training (arXiv:2310.05914); try 5."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between two rows of the training loss."""
    eval_strategy: Literal["steps", "epoch", "end"] = "epoch"
    """When to evaluate; the end is always evaluated."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between two evaluations (with eval_strategy: steps)."""
    evals_per_epoch: int | None = Field(default=None, ge=1)
    """Evaluations in each epoch, evenly spread (with eval_strategy: epoch)."""
    save_steps: int | None = Field(default=None, ge=1)
    """A checkpoint every so many steps, besides the one of each evaluation."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """End after so many evaluations in a row without improvement."""
    early_stopping_threshold: float = Field(default=0.0, ge=0)
    """How much better the metric must be to count as an improvement."""
    seed: int = Field(default=42, ge=0)
    """Draws first weights, the order of rows, and dropout."""

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
    """single and ddp hold the whole model on each worker; fsdp and deepspeed a part of it."""
    num_workers: int = Field(default=1, ge=1)
    """Workers of one trial."""
    resources_per_worker: dict[str, float] = Field(default_factory=lambda: {"CPU": 1.0})
    """What a worker takes of the cluster: {CPU: 4, GPU: 1}."""
    max_failures: int = Field(default=1, ge=0)
    """How often a trial is restarted from its checkpoint after a crash."""
    report_timeout_s: float | None = Field(default=None, gt=0)
    """A trial that writes no row for so many seconds (more than its base takes to load) is started again as after a
    crash."""
    price_per_hour: float | dict[str, float] | None = None
    """The price of one worker (usually a machine), or of a resource of it: {GPU: 1.2, CPU: 0.05}. In any currency."""
    reshard_after_forward: bool | None = None
    """fsdp: true frees a layer's weights between forward and backward."""
    cpu_offload: bool | None = None
    """fsdp: keep weights on the CPU while they are not used."""
    transformer_layer_cls_to_wrap: str | list[str] | None = None
    """fsdp: the classes of layers to be sharded; null: the model's own layers."""
    stage: Literal[1, 2, 3] | None = None
    """deepspeed: what is sharded. 1: the optimizer; 2: gradients too; 3: weights too."""
    offload: Literal["none", "cpu", "nvme"] | None = None
    """deepspeed: where sharded state is kept."""
    nvme_path: str | None = None
    """deepspeed: the folder of a fast disk (with offload: nvme)."""
    deepspeed: Annotated[dict[str, Any] | None, WithJsonSchema(PATH_OR_MAPPING)] = None
    """deepspeed: any other key of DeepSpeed's JSON, or the path of such a file."""

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
        return sum(self.resources_per_worker.get(name, 0.0) * each for name, each in price.items())

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
