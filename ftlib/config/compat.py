"""What does not go together, and what to choose instead. Everything that no rule names is allowed.

An experiment asks before anything starts, and so does every point of its sweep; `ftlib methods` prints the answers as
a table, and `docs/compatibility.md` is that table. A rule is a fact about methods, adapters, quantization and backends
as they are today: whoever mends one deletes a line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftlib.config.adapters import Lora
from ftlib.config.data import Labels
from ftlib.config.methods import DPO, GRPO, KTO, ORPO, RLOO, SFT, Classify, Distill, Pretrain, SimPO
from ftlib.config.rounding import ROUNDING
from ftlib.config.rule import Rule
from ftlib.config.sweep import PBT
from ftlib.config.untrained import UNTRAINED

if TYPE_CHECKING:
    from ftlib.config.experiment import Experiment

VIRTUAL_TOKENS = ("prefix", "prompt", "p_tuning")
WITH_REFERENCE = (DPO, KTO)
ONLINE = (GRPO, RLOO)
SHARDED = ("fsdp", "deepspeed")
NEEDS_FLOATS = ("pissa", "olora", "corda", "mica", "orthogonal")
TEACHER_BESIDE = ("feature", "relation", "on_policy")


ANY_PARTS = "any parts"  # the context in which pydantic makes an experiment whatever rules it breaks


def _type(experiment: Experiment) -> str:
    return experiment.adapter.type if experiment.adapter else "full"


def _saves_model(experiment: Experiment) -> bool:
    return experiment.adapter is None or experiment.adapter.saves == "model"


def _batch(experiment: Experiment, accumulated: bool = False) -> int:
    train = experiment.train
    steps = train.gradient_accumulation_steps if accumulated else 1
    return train.per_device_train_batch_size * steps * (experiment.scale.num_workers if accumulated else 1)


def _has_reference(experiment: Experiment) -> bool:
    """Whether training compares with a reference model. GRPO and RLOO do so where beta is above 0."""
    return getattr(experiment.method, "beta", 0) > 0


def _init(experiment: Experiment) -> str:
    return str(experiment.adapter.init_lora_weights) if isinstance(experiment.adapter, Lora) else ""


def _own_optimizer(adapter: Lora) -> bool:
    return adapter.lora_fa or adapter.lora_plus_ratio is not None


def _ewc(experiment: Experiment) -> bool:
    return getattr(experiment.method, "ewc", None) is not None


def _begins_as_base(adapter: Lora) -> bool:
    """Whether a LoRA adds nothing at first, and plain matrices later."""
    plain = not (adapter.use_dora or adapter.modules_to_save or adapter.target_parameters)
    return adapter.init_lora_weights in (True, "gaussian") and plain and adapter.start is None


def _whole_modules(experiment: Experiment) -> bool:
    adapter = experiment.adapter
    return isinstance(adapter, Lora) and bool(adapter.modules_to_save or adapter.target_parameters)


def _mutual(experiment: Experiment) -> bool:
    return isinstance(experiment.method, Distill) and experiment.method.kind == "mutual"


def _has_no_depth(experiment: Experiment) -> bool:
    """Whether what is trained lies in no layers: virtual tokens, or a head alone."""
    return _type(experiment) in VIRTUAL_TOKENS or getattr(experiment.method, "freeze", "none") == "encoder"


def _moves_base(experiment: Experiment) -> bool:
    return experiment.adapter is not None and experiment.adapter.moves_base


RULES: tuple[Rule, ...] = (
    *UNTRAINED,
    Rule(
        "adapter",
        lambda e: e.model.init == "random" and e.adapter is not None,
        "an adapter on random weights learns nothing useful",
        "adapter: null, or model.init: pretrained",
    ),
    Rule(
        "model.quantization",
        lambda e: e.model.quantization and _saves_model(e),
        "a quantized weight is frozen, so no part of the model itself can be trained",
        "adapter: {type: lora}, or quantization: null",
    ),
    Rule(
        "model.quantize_moe_experts",
        lambda e: e.model.quantize_moe_experts and isinstance(e.adapter, Lora) and e.adapter.target_parameters,
        "PEFT does not take its B A off quantized experts after a step",
        "quantize_moe_experts: false, or target_parameters: []",
    ),
    Rule(
        "scale.strategy",
        lambda e: e.model.quantize_moe_experts and e.scale.strategy == "deepspeed" and e.scale.stage == 3,
        "stage 3 reads a weight in parts, and experts are quantized as a whole",
        "ddp, or deepspeed with stage: 2",
    ),
    Rule(
        "adapter.init_lora_weights",
        lambda e: e.model.quantization and _init(e).startswith(NEEDS_FLOATS),
        "it computes with the base's weights, which quantization has rounded",
        "init_lora_weights: true, gaussian or eva",
    ),
    Rule(
        "adapter.init_lora_weights",
        lambda e: e.model.quantization != "nf4" and _init(e) == "loftq",
        "'loftq' makes up for what nf4 rounds away",
        "quantization: nf4, or init_lora_weights: true",
    ),
    Rule(
        "adapter.use_dora",
        lambda e: e.model.quantization == "int8" and isinstance(e.adapter, Lora) and e.adapter.use_dora,
        "bitsandbytes does not give out what its 8-bit weights are scaled by",
        "quantization: nf4, or use_dora: false",
    ),
    Rule(
        "train.activation_checkpointing",
        lambda e: e.train.activation_checkpointing and _type(e) == "prefix",
        "a layer that is computed again meets its prefix twice",
        "activation_checkpointing: false, or adapter: {type: prompt}",
    ),
    Rule(
        "train.tf32",
        lambda e: e.train.tf32 is not None and not e.scale.use_gpu,
        "TF32 is a mode of GPUs, and scale.resources_per_worker has none",
        "tf32: null, or resources_per_worker: {GPU: 1}",
    ),
    Rule(
        "scale.strategy",
        lambda e: e.scale.strategy == "fsdp" and e.model.quantization,
        "FSDP leaves 4-bit weights whole on every worker, and loses the scales of 8-bit ones",
        "ddp, or deepspeed with stage: 3",
    ),
    Rule(
        "scale.strategy",
        lambda e: e.scale.strategy in SHARDED and isinstance(e.adapter, Lora) and _own_optimizer(e.adapter),
        "lora_plus_ratio and lora_fa bring an optimizer over weights that are not sharded yet",
        "single or ddp",
    ),
    Rule(
        "adapter.modules_to_save",
        lambda e: _whole_modules(e) and (e.train.layer_lr_decay < 1 or e.train.unfreeze_steps is not None),
        "layer_lr_decay and unfreeze_steps know how deep A and B of linear layers lie",
        "modules_to_save: [] and target_parameters: [], or neither of these two keys",
    ),
    Rule(
        "train.layer_lr_decay",
        lambda e: e.train.layer_lr_decay < 1 and _has_no_depth(e),
        "what is trained lies in one place, and not in many layers",
        "1.0, or adapter: {type: lora}",
    ),
    Rule(
        "train.layer_lr_decay",
        lambda e: e.train.layer_lr_decay < 1 and isinstance(e.adapter, Lora) and _own_optimizer(e.adapter),
        "lora_plus_ratio and lora_fa bring an optimizer with rates of its own",
        "1.0, or neither of these two",
    ),
    Rule(
        "train.layer_lr_decay",
        lambda e: e.train.layer_lr_decay < 1 and e.scale.strategy in SHARDED,
        "it sorts weights by layers, and these are sharded",
        "1.0, or strategy: single or ddp",
    ),
    *ROUNDING,
    Rule(
        "train.qat",
        lambda e: e.train.qat and e.scale.strategy in SHARDED,
        "it rounds whole weights, and these are sharded",
        "null, or strategy: single or ddp",
    ),
    Rule(
        "train.shifted_attention",
        lambda e: e.train.shifted_attention and not isinstance(e.method, SFT | Pretrain | Classify),
        "this method compares what is trained with what is computed with full attention",
        "null, or method: {type: sft}",
    ),
    Rule(
        "train.shifted_attention",
        lambda e: e.train.shifted_attention and _type(e) in VIRTUAL_TOKENS,
        "virtual tokens stand before the first group, where the others do not see them",
        "null, or adapter: {type: lora}",
    ),
    Rule(
        "train.shifted_attention",
        lambda e: e.train.shifted_attention and e.model.attn_implementation not in (None, "sdpa"),
        "it is an attention of its own",
        "null, or model.attn_implementation: null",
    ),
    Rule(
        "train.unfreeze_steps",
        lambda e: e.train.unfreeze_steps is not None and _has_no_depth(e),
        "what is trained lies in one place, and not in many layers",
        "null, or adapter: {type: lora}",
    ),
    Rule(
        "train.unfreeze_steps",
        lambda e: e.train.unfreeze_steps is not None and e.scale.strategy != "single",
        "several workers agree at the start on what is trained",
        "null, or scale.strategy: single",
    ),
    Rule(
        "method.freeze",
        lambda e: isinstance(e.method, Classify) and e.method.freeze == "encoder" and e.adapter is not None,
        "'encoder' trains the head alone, so an adapter would never be trained",
        "adapter: null, or freeze: none",
    ),
    Rule(
        "adapter.init_lora_weights",
        lambda e: isinstance(e.method, (*WITH_REFERENCE, *ONLINE)) and _moves_base(e) and _has_reference(e),
        "it moves a part of the base into the adapter, and TRL's second adapter, the reference, would move another",
        "init_lora_weights: true, gaussian or orthogonal",
    ),
    Rule(
        "method.ewc",
        lambda e: _ewc(e) and not (_saves_model(e) or (isinstance(e.adapter, Lora) and _begins_as_base(e.adapter))),
        "it holds weights of the base near where they were, and knows what a plain LoRA that begins as its base adds "
        "to them",
        "adapter: {type: lora}, or adapter: null",
    ),
    Rule(
        "method.ewc",
        lambda e: _ewc(e) and e.model.quantization,
        "it needs the gradients of the base's weights, and quantized ones have none",
        "ewc: null, or quantization: null",
    ),
    Rule(
        "method.ewc",
        lambda e: _ewc(e) and e.scale.strategy in SHARDED,
        "it compares whole weights, and these are sharded",
        "ewc: null, or strategy: single or ddp",
    ),
    Rule(
        "data.packing",
        lambda e: e.data.packing and not isinstance(e.method, SFT | Pretrain | Distill),
        "only rows of sft and pretrain can be packed: these are compared with each other, or scored one by one",
        "packing: false",
    ),
    Rule(
        "adapter.type",
        lambda e: isinstance(e.method, (*WITH_REFERENCE, *ONLINE)) and _type(e) == "adalora" and _has_reference(e),
        "TRL keeps the untrained adapter as the reference, and AdaLoRA allows no second one",
        "lora",
    ),
    Rule(
        "adapter.type",
        lambda e: isinstance(e.method, ORPO | SimPO) and _type(e) in ("prompt", "p_tuning"),
        "TRL's loss of orpo and simpo runs past virtual tokens",
        "prefix or lora",
    ),
    Rule(
        "adapter.type",
        lambda e: isinstance(e.method, Distill) and e.method.kind == "on_policy" and _type(e) in VIRTUAL_TOKENS,
        "TRL's on-policy loss runs past virtual tokens",
        "lora",
    ),
    Rule(
        "scale.strategy",
        lambda e: isinstance(e.method, Distill) and e.method.kind in TEACHER_BESIDE and e.scale.strategy in SHARDED,
        "the student is sharded, but the whole teacher runs beside it",
        "single or ddp, or kind: logit, whose teacher runs before",
    ),
    Rule(
        "adapter",
        lambda e: _mutual(e) and e.adapter is not None,
        "the teacher of kind 'mutual' is trained whole, at the rate of the student, and adapters need a higher one",
        "adapter: null, or kind: logit",
    ),
    Rule(
        "scale.strategy",
        lambda e: _mutual(e) and e.scale.strategy != "single",
        "the teacher of kind 'mutual' is trained by one worker",
        "single, or kind: logit",
    ),
    Rule(
        "method.kind",
        lambda e: _mutual(e) and (e.train.layer_lr_decay < 1 or e.train.unfreeze_steps is not None),
        "'mutual' trains two models, and layer_lr_decay and unfreeze_steps know the layers of one",
        "kind: logit, or neither of these two keys",
    ),
    Rule(
        "data.train_on_prompt",
        lambda e: e.data.train_on_prompt and e.method.rows != "answers",
        "this method has no loss on prompts",
        "train_on_prompt: false",
    ),
    Rule(
        "data.long_rows",
        lambda e: e.data.long_rows == "split" and e.method.rows not in ("answers", "text"),
        "only rows of sft and distill can be split: those of this method are judged, labelled or answered as a whole",
        "long_rows: cut, drop or error",
    ),
    Rule(
        "data.long_rows",
        lambda e: e.data.long_rows != "cut" and e.method.rows == "text",
        "pretrain joins all texts and cuts them into blocks, so no row is too long",
        "long_rows: cut",
    ),
    Rule(
        "data.eval_split",
        lambda e: e.sweep and not e.data.held_out,
        "a sweep compares its trials on rows that are held out, and 0 holds none out",
        "0.1, or a file in data.eval (ftlib train goes without)",
    ),
    Rule(
        "data.eval_split",
        lambda e: isinstance(e.method, Distill) and not e.data.held_out,
        "what a student keeps of its teacher is measured on rows that are held out, and 0 holds none out",
        "0.1, or a file in data.eval",
    ),
    Rule(
        "train.early_stopping_patience",
        lambda e: e.train.early_stopping_patience is not None and not e.data.held_out,
        "it waits for a better evaluation, and data.eval_split 0 leaves nothing to evaluate on",
        "early_stopping_patience: null, or eval_split: 0.1",
    ),
    Rule(
        "data.packing",
        lambda e: e.data.packing and isinstance(e.method, Distill) and e.method.kind != "sequence",
        "it joins rows, and the teacher speaks of single ones",
        "packing: false",
    ),
    Rule(
        "train.per_device_train_batch_size",
        lambda e: isinstance(e.method, Distill) and e.method.kind == "relation" and _batch(e) < 3,
        "kind 'relation' compares the examples of a batch, three at a time",
        "3 or more",
    ),
    Rule(
        "train.per_device_train_batch_size",
        lambda e: isinstance(e.method, ONLINE) and _batch(e, accumulated=True) % e.method.num_generations,
        "a batch counts completions, and holds whole groups of method.num_generations of them",
        "a multiple of num_generations",
    ),
    Rule(
        "train.per_device_eval_batch_size",
        lambda e: (
            isinstance(e.method, ONLINE)
            and e.train.per_device_eval_batch_size * e.scale.num_workers % e.method.num_generations
        ),
        "a batch counts completions, and holds whole groups of method.num_generations of them",
        "a multiple of num_generations",
    ),
    Rule(
        "sweep.metric",
        lambda e: isinstance(e.method, ONLINE) and e.sweep and "eval_loss" in e.sweep.metrics,
        "the loss of a policy gradient says nothing of how good the model is",
        "metric: eval_reward",
    ),
    Rule(
        "sweep.scheduler",
        lambda e: e.sweep and isinstance(e.sweep.scheduler, PBT) and e.scale.strategy != "single",
        "'pbt' copies checkpoints between trials of one worker only",
        "scheduler: {type: asha}, or scale.strategy: single",
    ),
    Rule(
        "model.init",
        lambda e: e.model.init == "random" and isinstance(e.method, (*WITH_REFERENCE, *ONLINE)),
        "random weights have no answers to prefer or to reward",
        "model.init: pretrained",
    ),
    Rule(
        "data.labels",
        lambda e: e.data.labels != Labels() and e.method.rows not in ("labelled", "judged"),
        "only rows of classify and kto have labels",
        "no data.labels",
    ),
)


def refusals(experiment: Experiment) -> Iterator[Rule]:
    """The rules that an experiment breaks."""
    return (rule for rule in RULES if rule.applies(experiment))
