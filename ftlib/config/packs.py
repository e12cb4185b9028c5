"""Which trials can be packed: they share one frozen base, see the same rows, and differ in what a slot holds. A trial
alone is a pack of one.

What only the base itself can tell (its attention, its logits) is asked by the pack when it has loaded it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ftlib.config.adapters import Lora
from ftlib.config.methods import DPO, KTO, ORPO, SFT, Classify, Distill, Pretrain, Reward, SimPO
from ftlib.config.objectives import is_timed
from ftlib.config.space import Choice, Dimension, Range

if TYPE_CHECKING:
    from ftlib.config.experiment import Experiment

METHODS = (SFT, Pretrain, Classify, DPO, KTO, ORPO, SimPO, Reward)
# What trials of one pack may differ in; all else is the base's, the data's or the pack's.
PER_TRIAL = (
    "adapter.r",
    "adapter.lora_alpha",
    "adapter.lora_dropout",
    "adapter.use_rslora",
    "adapter.rank_pattern",
    "adapter.alpha_pattern",
    "adapter.target_modules",
    "adapter.layers_to_transform",
    "adapter.lora_plus_ratio",
    "adapter.lora_fa",
    "adapter.use_dora",
    "method.beta",
    "method.label_smoothing",
    "method.loss_type",
    "method.loss_weights",
    "method.desirable_weight",
    "method.undesirable_weight",
    "method.temperature",
    "method.alpha",
    "method.simpo_gamma",
    "method.cpo_alpha",
    "method.center_rewards_coefficient",
)
SHAPING = (  # of these, which layers an adapter has, and what ranks beside `r`
    "adapter.target_modules",
    "adapter.layers_to_transform",
    "adapter.rank_pattern",
)
SHARED_TRAIN = (
    "train.optim",
    "train.bf16",
    "train.tf32",
    "train.activation_checkpointing",
    "train.neftune_noise_alpha",
    "train.unfreeze_steps",
    "train.shifted_attention",
    "train.qat",
)


def may_be_dora(e: Experiment) -> bool:
    """Whether a trial of the sweep can have DoRA's magnitudes."""
    return _may_be("use_dora", e)


def _may_be(key: str, e: Experiment) -> bool:
    swept = _values(e.sweep.space.get(f"adapter.{key}")) if e.sweep else []
    return isinstance(e.adapter, Lora) and any(swept or [getattr(e.adapter, key)])


def _drops(e: Experiment) -> bool:
    return isinstance(e.adapter, Lora) and (_sweeps("adapter.lora_dropout", e) or e.adapter.lora_dropout > 0)


def _sweeps(path: str, e: Experiment) -> bool:
    return e.sweep is not None and path in e.sweep.space


RULES: tuple[tuple[Callable[[Experiment], bool], str], ...] = (
    (
        lambda e: not e.method.trains,
        "trials of a merge train nothing, so there is no training to share",
    ),
    (
        lambda e: not isinstance(e.adapter, Lora),
        "only LoRA adapters share their base's products: use adapter.type: lora",
    ),
    (
        lambda e: isinstance(e.adapter, Lora) and e.adapter.init_lora_weights not in (True, "gaussian"),
        "slots begin with a B of zeros: use init_lora_weights: true or gaussian",
    ),
    (
        lambda e: _may_be("modules_to_save", e) or _may_be("target_parameters", e),
        "slots hold A and B of linear layers, and no whole modules: use modules_to_save: [] and target_parameters: []",
    ),
    (
        lambda e: e.scale.use_gpu and _may_be("lora_fa", e),
        "LoRA-FA's step is computed on CPUs alone: use lora_fa: false, or scale.resources_per_worker without GPU",
    ),
    (
        lambda e: may_be_dora(e) and _drops(e),
        "DoRA multiplies what is dropped by the base once more: use lora_dropout: 0.0, or use_dora: false",
    ),
    (
        lambda e: may_be_dora(e) and e.model.quantization is not None,
        "DoRA needs the norms of the base's own weights: use model.quantization: null, or use_dora: false",
    ),
    (
        lambda e: (
            not isinstance(e.method, METHODS)
            and not (
                isinstance(e.method, Distill) and e.method.kind in ("logit", "self") and e.method.task == "language"
            )
        ),
        "the method has no loss for packs: sft, pretrain, classify, dpo, kto, orpo, simpo, reward and distill by "
        "logits have",
    ),
    (
        lambda e: isinstance(e.method, SFT) and e.method.ewc is not None,
        "the penalty of EWC is computed by its trainer: use method.ewc: null",
    ),
    (
        lambda e: isinstance(e.method, SFT) and (e.method.loss_type != "nll" or _sweeps("method.loss_type", e)),
        "a pack computes the plain loss of answers: use method.loss_type: nll",
    ),
    (lambda e: isinstance(e.method, Classify) and e.method.freeze == "encoder", "'freeze: encoder' trains no adapter"),
    (
        lambda e: isinstance(e.method, DPO | KTO) and not e.method.precompute_ref_log_probs,
        "the reference is computed once: set method.precompute_ref_log_probs: true",
    ),
    (
        lambda e: e.scale.strategy != "single",
        "a trial spread over workers has a process of its own: use scale.strategy: single",
    ),
    (
        lambda e: e.train.optim not in ("adamw_torch", "adamw_torch_fused"),
        "slots are trained by AdamW: use train.optim: adamw_torch",
    ),
    (
        lambda e: e.train.neftune_noise_alpha is not None,
        "noise on embeddings would be one for all trials: drop neftune_noise_alpha",
    ),
    (
        lambda e: e.train.shifted_attention is not None,
        "a pack has an attention of its own: use train.shifted_attention: null",
    ),
    (lambda e: e.train.qat is not None, "a pack computes with the base's weights as they are: use train.qat: null"),
    (
        lambda e: e.train.unfreeze_steps is not None,
        "all layers of a pack are trained from the start: use train.unfreeze_steps: null",
    ),
    (
        lambda e: e.train.bf16 is True and e.model.dtype != "bfloat16",
        "a pack computes in the base's dtype: use model.dtype: bfloat16",
    ),
    (
        lambda e: e.train.dataloader_num_workers > 0,
        "a pack reads its rows itself: use train.dataloader_num_workers: 0",
    ),
    (lambda e: e.data.packing, "a pack computes no padding anyway: use data.packing: false"),
    (is_timed, "trials of a pack write their answers together, and latency_ms is of one alone: leave latency_ms out"),
    (lambda e: e.scale.engine == "trainer", "the method's trainer was asked for: use scale.engine: auto"),
)


# What only the base itself can tell; its check (`ftlib.pack.frozen_base`) says which of these it is.
BASES = (
    "the base's attention does not go through transformers' attention interface, or caps its scores (Gemma 2)",
    "the base makes its logits in a way of its own (Granite, Cohere)",
    "the router of the base's experts has a loss of its own, which method.router_aux_loss_coef: 0 leaves out",
    "the base is a decoder that drops weights of its attention (GPT-2 does, unless model.config.attn_pdrop is 0.0)",
    "an adapted layer of the base is not linear",
    "the base is a classifier whose head is not made of linear layers named 'score' or 'classifier'",
    "a layer beside the head is missing in the base's files (a pooler), and train.seed, which draws it, "
    "is swept or evaluation.seeds is above 1",
)


def why_not_packed(experiment: Experiment) -> str | None:
    """Why the trials of this experiment cannot share a base, as a sentence; None where they can."""
    return next(_reasons(experiment), None)


def why_by_trainers(experiment: Experiment) -> str | None:
    """Why trials are left to the method's trainer, as a sentence; None where the engine of packs takes them, those of a
    sweep or the only one."""
    if experiment.pack == "off":
        return "sweep.pack: off"
    if experiment.sweep is None and experiment.scale.use_gpu:  # until `benchmarks/gpu_day.py` says that it is faster
        return "on a GPU, the engine of packs is for several trials"
    return why_not_packed(experiment)


def _reasons(experiment: Experiment) -> Iterator[str]:
    yield from (reason for applies, reason in RULES if applies(experiment))
    for path in experiment.sweep.space if experiment.sweep else ():
        if path in SHARED_TRAIN or not path.startswith(("train.", *PER_TRIAL)):
            yield f"trials differ in {path}, which all trials of a pack share: take it out of the space"


def shapes(experiment: Experiment) -> list[Lora]:
    """An adapter for each choice of modules, layers and patterns that trials of the sweep can have."""
    assert isinstance(experiment.adapter, Lora)
    space = experiment.sweep.space if experiment.sweep else {}
    listed = {path: values for path in SHAPING if (values := _values(space.get(path)))}
    points = itertools.product(*listed.values())
    return [
        experiment.adapter.model_copy(
            update={path.removeprefix("adapter."): value for path, value in zip(listed, point, strict=True)}
        )
        for point in points
    ]


def _values(dimension: Dimension | None) -> list[Any]:
    return dimension.choices if isinstance(dimension, Choice) else []


def largest_rank(experiment: Experiment) -> int:
    """The largest rank that a layer of a trial of the sweep can have."""
    assert isinstance(experiment.adapter, Lora)
    dimension = experiment.sweep.space.get("adapter.r") if experiment.sweep else None
    ranks = [int(dimension.max)] if isinstance(dimension, Range) else _values(dimension) or [experiment.adapter.r]
    patterned = (rank for shape in shapes(experiment) for rank in shape.rank_pattern.values())
    return max(*map(int, ranks), *patterned, 1)  # of one alone, max would want a list


__all__ = [
    "BASES",
    "PER_TRIAL",
    "RULES",
    "SHARED_TRAIN",
    "largest_rank",
    "may_be_dora",
    "shapes",
    "why_by_trainers",
    "why_not_packed",
]
