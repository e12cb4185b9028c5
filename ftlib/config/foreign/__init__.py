"""The keys of other tools, and what each is here: one of ours, needless, or not there, with the reason.

People arrive with the keys of Axolotl, LLaMA-Factory and TRL in their fingers. One literal table a tool; a key that
several tools share stands in the first of `axolotl`, `llama_factory`, `trl` that has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal

from ftlib.config.foreign import axolotl, datasets, llama_factory, trl

# What people write who have read nothing yet.
EVERYDAY: dict[str, str] = {
    **{name: f"method: {{type: {name}}}" for name in ("sft", "dpo", "kto", "orpo", "simpo", "grpo", "rloo")},
    "lora": "adapter: {type: lora}",
    "qlora": "model.quantization: nf4 (with adapter: {type: lora})",
    "dora": "adapter.use_dora",
    "base": "model.name_or_path",
    "tokenizer_name": "model.tokenizer",
    "quantize": "model.quantization",
    "file": "data.train",
    "dataset_path": "data.train",
    "train_file": "data.train",
    "validation_file": "data.eval",
    "eval_file": "data.eval",
    "test_size": "data.eval_split",
    "num_train_steps": "train.max_steps",
    "steps": "train.max_steps",
    "num_steps": "train.max_steps",
    "train_batch_size": "train.per_device_train_batch_size",
    "bs": "train.per_device_train_batch_size",
    "gradient_clipping": "train.max_grad_norm",
    "patience": "train.early_stopping_patience",
    "precision": "train.bf16",
    "trials": "sweep.num_samples",
    "n_trials": "sweep.num_samples",
    "num_trials": "sweep.num_samples",
    "parameters": "sweep.space",
    "search_space": "sweep.space",
    "sampler": "sweep.search.sampler",
    "gpus": "scale.resources_per_worker: {GPU: 1} (for each of scale.num_workers)",
    "num_gpus": "scale.resources_per_worker: {GPU: 1} (for each of scale.num_workers)",
    "cpus": "scale.resources_per_worker: {CPU: 1}",
    "workers": "scale.num_workers",
}


# Words that mean one thing in one section: dotted path -> ours.
WITHIN: dict[str, str] = {
    "model.name": "model.name_or_path",
    "model.path": "model.name_or_path",
    "model.id": "model.name_or_path",
    "model.base": "model.name_or_path",
    "data.path": "data.train",
    "data.file": "data.train",
    "data.name": "data.train",
    "data.dataset": "data.train",
    "data.validation": "data.eval",
    "data.test": "data.eval",
    "data.split": "data.eval_split (or data.hub_split, of a data set on the Hub)",
    "data.shuffle": "train.seed (rows are always met in an order that it draws)",
    "method.name": "method.type",
    "adapter.name": "adapter.type",
    "adapter.kind": "adapter.type",
    "train.name": "name",
    "sweep.algorithm": "sweep.search.type",
    "sweep.method": "sweep.search.type",
    "sweep.sampler": "sweep.search.sampler",
    "sweep.name": "name",
    "track.project": "track.wandb.project",
    "track.entity": "track.wandb.entity",
}
ONE_DATA_SET = ("data", "data.train", "data.replay")  # sections that have the keys of one data set

# Values that other tools have where these keys are here, each with what to write instead.
VALUES: dict[str, dict[str, str]] = {
    "method.type": {
        "ppo": "PPO needs four models at once: use grpo or rloo",
        "ipo": "use type: dpo, with loss_type: ipo",
        "bco": "use type: dpo, with loss_type: bco_pair",
        "cpo": "of TRL's CPO ftlib has simpo: use type: simpo",
        "pt": "use pretrain",
        "rm": "use reward",
        "online_dpo": "the model learns from its own completions with grpo or rloo",
        "gkd": "use type: distill, with kind: on_policy",
        "gold": "use type: distill, with kind: on_policy",
        "kd": "use distill",
        "full": "use sft, with adapter: null",
        "lora": "use sft, with adapter: {type: lora}",
    },
    "adapter.type": {
        "full": "use adapter: null, which trains all weights",
        "qlora": "use type: lora, with model.quantization: nf4",
        "dora": "use type: lora, with use_dora: true",
        "rslora": "use type: lora, with use_rslora: true",
        "pissa": "use type: lora, with init_lora_weights: pissa",
        "loftq": "use type: lora, with init_lora_weights: loftq",
        "freeze": "use type: layers",
        "loha": "use lora",
        "lokr": "use lora",
    },
    "scale.strategy": {
        "zero1": "use deepspeed, with stage: 1",
        "zero2": "use deepspeed, with stage: 2",
        "zero3": "use deepspeed, with stage: 3",
        "dp": "use ddp",
        "fsdp2": "use fsdp",
        "accelerate": "use ddp, fsdp or deepspeed",
    },
    "sweep.scheduler.type": {
        "hyperband": "use asha",
        "sha": "use asha",
        "pb2": "use pbt",
        "fifo": "use none",
    },
    "sweep.search.type": {"tpe": "use optuna, with sampler: tpe", "bayes": "use optuna", "hyperopt": "use optuna"},
    "data.template": {"llama2": "use chatml", "vicuna": "use chatml", "default": "use auto", "empty": "use none"},
}


@dataclass(frozen=True)
class Answer:
    """`text`: for `ours` the dotted path here, with a note after a space; else the reason. `harmless`: ftlib does it
    anyway, or has no need of it. `absent`: ftlib does not have it, and without it the same is learned. `refused`: what
    is learned hangs on it."""

    kind: Literal["ours", "harmless", "absent", "refused"]
    text: str

    @property
    def sentence(self) -> str:
        """The answer that a person reads."""
        if self.kind == "ours":
            return f"Here it is called {self.text}."
        return f"Leave it out: {self.text}." if self.kind == "harmless" else f"ftlib does not have it: {self.text}."


def answer(key: str, section: str = "") -> Answer | None:
    """What a key of another tool is here, where it was found in `section`; None for a key that none of them has."""
    if path := WITHIN.get(f"{section}.{key}"):
        return Answer("ours", path)
    of_data_set = of_tool(datasets).get(key) if section in ONE_DATA_SET else None
    return of_data_set or answers().get(key)


def instead(path: str, value: str) -> str:
    """What to write for a value that another tool has there, as a sentence after a space; or an empty string."""
    found = VALUES.get(path, {}).get(value)
    return f" {found[0].upper()}{found[1:]}." if found else ""


@cache
def answers() -> dict[str, Answer]:
    """Every key of every table, with its answer."""
    found = {key: Answer("ours", path) for key, path in EVERYDAY.items()}
    return found | of_tool(trl) | of_tool(llama_factory) | of_tool(axolotl)


@cache
def of_tool(table: ModuleType) -> dict[str, Answer]:
    """Every key of one table, with its answer."""
    refused = {key: Answer("refused", reason) for reason, keys in table.REFUSED.items() for key in keys.split()}
    harmless = {key: Answer("harmless", reason) for reason, keys in table.HARMLESS.items() for key in keys.split()}
    absent = {key: Answer("absent", reason) for reason, keys in table.ABSENT.items() for key in keys.split()}
    return refused | absent | harmless | {key: Answer("ours", path) for key, path in table.OURS.items()}


__all__ = ["Answer", "answer", "answers", "instead"]
