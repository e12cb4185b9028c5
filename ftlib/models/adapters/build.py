"""From an `adapter:` section to a model that trains it: one builder a type, in one literal dict.

Where PEFT has the method, its config takes our keys as they are. The seed must be set before: builders draw weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    VeraConfig,
    get_peft_model,
    initialize_kv_prefix_from_past_key_values,
    prepare_model_for_kbit_training,
)
from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.config import CordaConfig, EvaConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.eva import initialize_lora_eva_weights
from peft.utils.integrations import dequantize_module_weight
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ftlib.config import (
    AdaLora,
    AdapterSection,
    Bottleneck,
    Experiment,
    Fusion,
    Head,
    Layers,
    Lora,
    ModelSection,
    Prefix,
    Prompt,
)
from ftlib.errors import ConfigError, nearest
from ftlib.models.adapters.bottleneck import BottleneckConfig
from ftlib.models.adapters.fusion import finished, load_finished
from ftlib.models.adapters.named import check_experts, check_named, matching
from ftlib.models.adapters.start import load_start
from ftlib.models.adapters.state import remember_start
from ftlib.models.base import bare_model
from ftlib.models.lean_imports import without_bitsandbytes

TASKS: dict[Head, TaskType] = {
    "causal_lm": TaskType.CAUSAL_LM,
    "sequence_classification": TaskType.SEQ_CLS,
    "reward": TaskType.SEQ_CLS,
}
LINEAR = (nn.Linear, Conv1D)  # GPT-2's are the second
CALIBRATION_ROWS = 64
SMALL = 0.02  # the spread with which transformers draws new weights
Batch = dict[str, torch.Tensor]


def add_adapter(
    model: PreTrainedModel,
    adapter: AdapterSection | None,
    head: Head = "causal_lm",
    batches: Sequence[Batch] = (),
) -> PreTrainedModel | PeftModel:
    """The model with a fresh adapter, or as it is where `adapter` is None.

    `batches` are inputs of the model, for initializations that start from data. Raises ConfigError for what PEFT, or
    this model, cannot do.
    """
    quantized = getattr(model, "is_quantized", False)
    if quantized and (adapter is None or adapter.saves == "model"):
        kind = "null" if adapter is None else adapter.type
        raise ConfigError(
            f"adapter.type {kind} trains weights that model.quantization freezes: use adapter.type: lora, or "
            "model.quantization: null."
        )
    if adapter is None:
        return model
    if adapter.calibrated and not batches:
        raise ConfigError(
            "adapter.init_lora_weights: it starts from tokenized training rows, which this method does not have: "
            "use init_lora_weights: pissa, or true."
        )
    if quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with _explained(model, adapter), nullcontext() if quantized else without_bitsandbytes():
        adapted = BUILDERS[adapter.type](model, adapter, TASKS[head], batches)
    check_experts(adapted, adapter)
    if adapter.moves_base:
        remember_start(adapted)
    return adapted


def empty_model(model: ModelSection, adapter: AdapterSection | None, head: Head = "causal_lm") -> Any:
    """The adapted model's shape on the meta device: it takes no memory and reads no weights."""
    if isinstance(adapter, Lora):  # the other initializations compute from weights, which a shape has not
        adapter = adapter.model_copy(update={"init_lora_weights": True, "from": None})
    if isinstance(adapter, Prompt):
        adapter = adapter.model_copy(update={"prompt_tuning_init": "RANDOM"})
    return add_adapter(bare_model(model, head), adapter, head)


def calibration(rows: Any, pad_token_id: int, batch_size: int = 8) -> list[Batch]:
    """Some training rows as inputs of the model; none where the method's rows are not token ids."""
    if "input_ids" not in rows.column_names:
        return []
    ids = [torch.tensor(row["input_ids"]) for row in rows.select(range(min(CALIBRATION_ROWS, len(rows))))]
    batches = []
    for start in range(0, len(ids), batch_size):
        part = ids[start : start + batch_size]
        padded = nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=pad_token_id)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(sequence) for sequence in part], batch_first=True)
        batches.append({"input_ids": padded, "attention_mask": mask})
    return batches


def make_optimizer(experiment: Experiment, model: Any) -> torch.optim.Optimizer | None:
    """The optimizer of LoRA+ or LoRA-FA; None where `train.optim` says which."""
    adapter, train = experiment.adapter, experiment.train
    if not isinstance(adapter, Lora):
        return None
    if adapter.lora_fa:
        return create_lorafa_optimizer(
            model=model,
            r=adapter.r,
            lora_alpha=adapter.lora_alpha,
            lr=train.learning_rate,
            weight_decay=train.weight_decay,
        )
    if adapter.lora_plus_ratio is not None:
        return create_loraplus_optimizer(
            model=model,
            optimizer_cls=torch.optim.AdamW,
            lr=train.learning_rate,
            loraplus_lr_ratio=adapter.lora_plus_ratio,
            loraplus_weight_decay=train.weight_decay,
            betas=(train.adam_beta1, train.adam_beta2),
            eps=train.adam_epsilon,
        )
    return None


@contextmanager
def kept_precision(model: Any) -> Iterator[None]:
    """Trainable weights keep their dtype while TRL builds its trainer.

    TRL casts a quantized model's adapter to bfloat16. AdamW's small steps are lost there, and whoever loads the adapter
    with PEFT (in float32) would compute something else than what was measured.
    """
    before = [(part, part.data) for part in model.parameters() if part.requires_grad]
    yield
    for part, data in before:
        if part.dtype != data.dtype:
            part.data = data.to(part.device)


# --- builders: (model, section, task, batches) -> the adapted model -------------------------------------------------


def _keys(adapter: Any, *without: str) -> dict[str, Any]:
    return adapter.model_dump(exclude={"type", *without})  # type: ignore[no-any-return]


def _by_peft(config: type[PeftConfig]) -> Callable[..., Any]:
    """A builder for a method whose PEFT config has our keys."""

    def build(model: Any, adapter: Any, task: TaskType, batches: Sequence[Batch]) -> Any:
        return get_peft_model(model, config(task_type=task, **_keys(adapter)))

    return build


def _lora(model: Any, adapter: Lora, task: TaskType, batches: Sequence[Batch]) -> Any:
    keys = _keys(adapter, "from", "lora_plus_ratio", "lora_fa", "init_lora_weights")
    check_named(model, adapter)
    keys |= {key: keys[key] or None for key in ("modules_to_save", "target_parameters")}
    if adapter.layers_to_transform is not None and adapter.target_modules == "all-linear":
        keys["target_modules"] = _linear_names(model)  # PEFT takes layers' numbers with names alone
    config = LoraConfig(task_type=task, **keys)
    if adapter.start is not None:
        begun = get_peft_model(model, config)
        load_start(begun, Path(adapter.start))
        return begun
    if adapter.init_lora_weights == "loftq":
        return _start_from_quantization_error(get_peft_model(model, config))
    config.init_lora_weights = adapter.init_lora_weights
    if adapter.init_lora_weights == "corda":
        config.corda_config = CordaConfig()
        if config.target_modules == "all-linear":
            config.target_modules = _linear_names(model)  # the preprocessing does not know the word
        preprocess_corda(model, config, run_model=lambda: _run(model, batches))
    if adapter.init_lora_weights == "eva":
        config.eva_config = EvaConfig(rho=1.0)  # every layer keeps r, so that a resume meets the same shapes
        adapted = get_peft_model(model, config)
        on_device = [{key: tensor.to(model.device) for key, tensor in batch.items()} for batch in batches]
        initialize_lora_eva_weights(adapted, on_device, show_progress_bar=False)
        return adapted
    return get_peft_model(model, config)


def _run(model: Any, batches: Sequence[Batch]) -> None:
    """Row by row, without its padding: CorDA's covariance takes one sequence at a time."""
    with torch.no_grad():
        for batch in batches:
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
                model(input_ids=ids[mask.bool()][None].to(model.device))


def _start_from_quantization_error(model: Any) -> Any:
    """LoftQ (arXiv:2310.08659), one step: B and A begin as the best rank-r part of what quantization lost.

    PEFT's own does this on a GPU only, and leaves the adapter's scaling out.
    """
    base = model.get_base_model()
    if not getattr(base, "is_loaded_in_4bit", False):
        raise ValueError("init_lora_weights 'loftq' makes up for 4-bit weights: set model.quantization: nf4")
    plain = type(base).from_pretrained(
        base.name_or_path,
        revision=getattr(base.config, "_commit_hash", None),
        dtype=torch.float32,
        use_safetensors=True,
    )
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer):
            weight = plain.get_submodule(name).weight.to(layer.get_base_layer().weight.device)
            lost = weight - dequantize_module_weight(layer.get_base_layer()).float()
            rank = layer.r["default"]
            left, values, right = torch.linalg.svd(lost, full_matrices=False)
            root = (values[:rank] / layer.scaling["default"]).sqrt()
            layer.lora_B["default"].weight.data.copy_(left[:, :rank] * root)
            layer.lora_A["default"].weight.data.copy_(root[:, None] * right[:rank])
    return model


def _adalora(model: Any, adapter: AdaLora, task: TaskType, batches: Sequence[Batch]) -> Any:
    # How many steps there are is known when training begins: ftlib.models.adapters.state.RankBudget sets it.
    config = AdaLoraConfig(task_type=task, total_step=adapter.tinit + adapter.tfinal + 1, **_keys(adapter))
    return get_peft_model(model, config)


def _prefix(model: Any, adapter: Prefix, task: TaskType, batches: Sequence[Batch]) -> Any:
    """Keys and values begin as the base's own for random words; a projection begins with none, and its words differ.

    PEFT draws them from N(0, 1), which drowns what the model attends to: SmolLM2's loss went from 1.3 to 11.
    """
    start = "zero" if adapter.prefix_projection else None
    adapted = get_peft_model(model, PrefixTuningConfig(task_type=task, init_weights=start, **_keys(adapter)))
    if not adapter.prefix_projection:
        _begin_at_words(adapted, adapter.num_virtual_tokens)
    return adapted


def _begin_at_words(adapted: Any, count: int) -> None:
    """Close to nothing where the base shows no keys and values: an encoder, partitioned weights, or a bare shape."""
    base, weight = adapted.get_base_model(), adapted.prompt_encoder[adapted.active_adapter].embedding.weight
    whole = all(part.numel() for part in base.parameters()) and not weight.is_meta
    if whole and base.config.get_text_config().use_cache:
        words = torch.randint(base.get_input_embeddings().num_embeddings, (1, count), device=base.device)
        with torch.no_grad():
            held = getattr(base(input_ids=words, use_cache=True), "past_key_values", None)
        if held is not None:
            initialize_kv_prefix_from_past_key_values(adapted, past_key_values=held)
            return
    weight.data.mul_(SMALL)


def _prompt(model: Any, adapter: Prompt, task: TaskType, batches: Sequence[Batch]) -> Any:
    name = model.name_or_path if adapter.prompt_tuning_init == "TEXT" else None
    return get_peft_model(model, PromptTuningConfig(task_type=task, tokenizer_name_or_path=name, **_keys(adapter)))


def _bottleneck(model: Any, adapter: Bottleneck, task: TaskType, batches: Sequence[Batch]) -> Any:
    return get_peft_model(model, BottleneckConfig(task_type=task, **_keys(adapter)))


def _fusion(model: Any, adapter: Fusion, task: TaskType, batches: Sequence[Batch]) -> Any:
    config, weights = finished(adapter.adapters)
    config.task_type = task
    adapted = get_peft_model(model, config)
    load_finished(adapted, weights)
    return adapted


def _bitfit(model: Any, adapter: Any, task: TaskType, batches: Sequence[Batch]) -> Any:
    biases = [part for name, part in model.named_parameters() if name.endswith("bias")]
    if not biases:
        raise ValueError(
            f"{type(model).__name__} has no biases to train: use adapter.type: ia3, which is about as small, or lora"
        )
    return _train_only(model, [*biases, *_classifier(model, task)])


def _layers(model: Any, adapter: Layers, task: TaskType, batches: Sequence[Batch]) -> Any:
    if adapter.parameters:
        return _train_only(model, [*matching(model, adapter.parameters), *_classifier(model, task)])
    stack = _layer_stack(model)
    if adapter.num_layers > len(stack):
        raise ValueError(f"num_layers is {adapter.num_layers}, but the model has {len(stack)}: use at most that")
    parts = [part for layer in stack[-adapter.num_layers :] for part in layer.parameters()]
    if adapter.train_head and model.get_output_embeddings() is not None:
        parts += model.get_output_embeddings().parameters()
    return _train_only(model, [*parts, *_classifier(model, task)])


def _train_only(model: Any, parts: Sequence[nn.Parameter]) -> Any:
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    return model


def _classifier(model: Any, task: TaskType) -> list[nn.Parameter]:
    """The weights of a classification head: all that is not in the body. It starts at random, so it is trained."""
    if task is not TaskType.SEQ_CLS:
        return []
    return [part for name, part in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")]


def _layer_stack(model: Any) -> nn.ModuleList:
    count = model.config.get_text_config().num_hidden_layers
    for part in model.modules():
        if isinstance(part, nn.ModuleList) and len(part) == count:
            return part
    raise ValueError(f"the layers of {type(model).__name__} are not where they are looked for: use adapter.type: lora")


def _linear_names(model: Any) -> list[str]:
    """The last parts of all linear layers' names, the output layer's left out: what PEFT calls all-linear."""
    output = model.get_output_embeddings()
    parts = [(name, part) for name, part in model.named_modules() if isinstance(part, LINEAR) and part is not output]
    return sorted({name.rpartition(".")[2] for name, _ in parts} - {"score", "classifier"})


BUILDERS: dict[str, Callable[..., Any]] = {
    "lora": _lora,
    "adalora": _adalora,
    "ia3": _by_peft(IA3Config),
    "vera": _by_peft(VeraConfig),
    "oft": _by_peft(OFTConfig),
    "boft": _by_peft(BOFTConfig),
    "prefix": _prefix,
    "prompt": _prompt,
    "p_tuning": _by_peft(PromptEncoderConfig),
    "bottleneck": _bottleneck,
    "fusion": _fusion,
    "bitfit": _bitfit,
    "layers": _layers,
}


@contextmanager
def _explained(model: Any, adapter: Any) -> Iterator[None]:
    """PEFT's refusals as one sentence each; for a wrong target module, with the names that there are."""
    try:
        yield
    except (ValueError, TypeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if "arget module" in reason and "target_modules" in type(adapter).model_fields:
            known = _linear_names(model)
            asked = (
                adapter.target_modules if isinstance(adapter.target_modules, str) else "".join(adapter.target_modules)
            )
            raise ConfigError(
                f"adapter.target_modules: {reason}.{nearest(asked, known)} Linear layers here: {', '.join(known)}."
            ) from None
        raise ConfigError(f"adapter: {reason}.") from None
