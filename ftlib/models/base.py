"""Base models and tokenizers: by name or path, from safetensors or a GGUF file, remote code only when asked."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from ftlib.config import Head, ModelSection, SpecialTokens
from ftlib.errors import ConfigError, FtlibError, InputError, nearest
from ftlib.files import hub
from ftlib.files.json_files import read_json
from ftlib.files.object_store import local_copy
from ftlib.models import gguf
from ftlib.models.adapter_files import tensors
from ftlib.models.experts import packed_away, quantize_experts
from ftlib.run.layout import LINEAGE, MANIFEST

CLASSES: dict[str, Any] = {
    "causal_lm": AutoModelForCausalLM,
    "sequence_classification": AutoModelForSequenceClassification,
    "reward": AutoModelForSequenceClassification,
}
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
HEADS = ["lm_head", "embed_out", "score", "classifier"]  # never quantized: they are small, or trained


def load_tokenizer(model: ModelSection, head: Head = "causal_lm") -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token (its end-of-text token where it has none of its own).

    Raises ConfigError where a model that writes could not end what it writes.
    """
    tokenizer, source = _own_tokenizer(model), model.tokenizer or model.name_or_path
    add_tokens(tokenizer, model.special_tokens)
    if tokenizer.eos_token_id is None and (head == "causal_lm" or tokenizer.pad_token_id is None):
        raise ConfigError(
            f"model.tokenizer: the tokenizer of {source} has no eos_token, so no answer could end: set "
            "model.special_tokens.eos_token."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _own_tokenizer(model: ModelSection) -> PreTrainedTokenizerBase:
    """The tokenizer as it was published."""
    if model.tokenizer:
        model = model.model_copy(update={"name_or_path": model.tokenizer, "gguf_file": None, "revision": None})
    key, source = "model.tokenizer" if model.tokenizer else "model.name_or_path", model.name_or_path
    local = where(model, key)
    gguf.check_tokenizer(key, Path(local))
    with _named(key, source):
        return AutoTokenizer.from_pretrained(local, revision=model.revision, trust_remote_code=model.trust_remote_code)


def where(model: ModelSection, key: str = "model.name_or_path") -> str:
    """What `from_pretrained` reads for a base: an ordinary folder of this machine, or a name on the Hub.

    What is at a URL is brought here, and a GGUF file dequantized, once. Raises ConfigError where that cannot be.
    """
    local = local_copy(key, model.name_or_path)
    file = _gguf_file(key, model, local)
    return local if file is None else str(gguf.as_folder(key, file))


def _gguf_file(key: str, model: ModelSection, local: str) -> Path | None:
    """The GGUF file that the base is in, brought here where it is on the Hub; None for an ordinary model."""
    if model.gguf_file is None or Path(local).expanduser().exists():
        return gguf.gguf_file(key, local, model.gguf_file)
    with _named(key, model.name_or_path):
        return Path(cached_file(local, model.gguf_file, revision=model.revision))


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: SpecialTokens) -> list[str]:
    """Sets and adds what `model.special_tokens` says; returns those tokens that the vocabulary did not have."""
    known = tokenizer.get_vocab()
    wanted = [*tokens.named.values(), *tokens.additional_special_tokens, *tokens.tokens]
    if tokens.named:
        tokenizer.add_special_tokens(tokens.named)
    tokenizer.add_tokens(tokens.additional_special_tokens, special_tokens=True)
    tokenizer.add_tokens(tokens.tokens)
    return [token for token in dict.fromkeys(wanted) if token not in known]


def new_tokens(model: ModelSection) -> list[str]:
    """The tokens of `model.special_tokens` that the tokenizer does not have of itself."""
    if model.special_tokens == SpecialTokens():
        return []
    return add_tokens(_own_tokenizer(model), model.special_tokens)


def _with_rows_for_tokens(loaded: PreTrainedModel, model: ModelSection, head: Head) -> PreTrainedModel:
    """The model with an embedding for each token of its tokenizer: new rows are drawn around the mean of the others."""
    if new_tokens(model):
        count = len(load_tokenizer(model, head))
        if count > loaded.get_input_embeddings().weight.shape[0]:
            loaded.resize_token_embeddings(count, mean_resizing=loaded.device.type != "meta")
    return loaded


def load_config(model: ModelSection) -> Any:
    """The model's `config.json` with the experiment's overrides. Raises ConfigError for a key it does not know."""
    local = where(model)
    with _named("model.name_or_path", model.name_or_path):
        config = AutoConfig.from_pretrained(local, revision=model.revision, trust_remote_code=model.trust_remote_code)
    for key, value in model.config.items():
        if not hasattr(config, key) or key.startswith("_") or key == "auto_map":  # which name programs
            raise ConfigError(
                f"model.config.{key}: {type(config).__name__} has no '{key}'.{nearest(key, vars(config))}"
            )
        setattr(config, key, value)
    return config


def load_model(model: ModelSection, head: Head = "causal_lm", labels: Sequence[str] = ()) -> PreTrainedModel:
    """The model on the CPU, in the dtype asked for, weights pretrained or random, with the head that the method trains.

    `labels` are the classes of a classifier, in the order of their numbers. A head that the weights lack is drawn from
    torch's seed, as random weights are. Raises ConfigError when the model cannot be found.
    """
    config = _with_head(load_config(model), head, labels)
    dtype = "auto" if model.dtype == "auto" else getattr(torch, model.dtype)
    kwargs: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if model.attn_implementation:
        kwargs["attn_implementation"] = model.attn_implementation
    if model.init == "random":
        drawn = CLASSES[head].from_config(config, dtype=torch.float32 if dtype == "auto" else dtype, **kwargs)
        return _with_rows_for_tokens(drawn, model, head)
    if model.quantization is not None:
        kwargs["quantization_config"] = quantization(model, config)
    local = where(model)
    with _named("model.name_or_path", model.name_or_path):
        loaded, found = CLASSES[head].from_pretrained(
            local,
            config=config,
            revision=model.revision,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **kwargs,
        )
    loaded.drawn = frozenset(found["missing_keys"])  # weights that the files lack
    keep_unpacked(loaded)
    if model.quantize_moe_experts and model.quantization:
        quantize_experts(loaded, model.quantization)
    return _with_rows_for_tokens(loaded, model, head)


def keep_unpacked(model: torch.nn.Module) -> None:
    """Evaluating leaves 4-bit weights as they are.

    On a CPU with AVX512-BF16, bitsandbytes packs them for good at the first forward in eval mode: scales are rounded
    to bfloat16, no gradient passes any more when training goes on, and layers whose width is no multiple of 64 fail.
    """
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def quantization(model: ModelSection, config: Any) -> BitsAndBytesConfig:
    """nf4 as in QLoRA (Dettmers et al. 2023, arXiv:2305.14314), its constants quantized too; or LLM.int8
    (arXiv:2208.07339). Computes in the model's dtype. Heads stay as they are."""
    check_quantization(model)
    if model.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=HEADS)
    dtype = config.dtype if model.dtype == "auto" else getattr(torch, model.dtype)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.float32,
        llm_int8_skip_modules=HEADS,
    )


def check_quantization(model: ModelSection) -> None:
    """Raises ConfigError when weights are to be quantized and what does it is not installed."""
    if model.quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantization is '{model.quantization}', which needs bitsandbytes: pip install 'ftlib[qlora]', "
            "or set it to null."
        )


def _with_head(config: Any, head: Head, labels: Sequence[str]) -> Any:
    """The config of a model with this head; a classifier on a language model needs the padding token to find the
    end."""
    if head == "reward":
        config.num_labels = 1
    elif head == "sequence_classification":
        config.num_labels = len(labels) or 2
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: number for number, label in enumerate(labels)}
    return config


def freeze_body(model: Any) -> None:
    """Leaves the head alone to be trained: the body's features are taken as they are."""
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(False)


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """(all parameters, trainable parameters) of the whole model: tied weights once, four-bit weights unpacked, those
    that are spread over workers with all their parts."""
    parameters = list(model.parameters())
    trained = sum(_count(param) for param in parameters if param.requires_grad)
    return sum(_count(param) for param in parameters) + packed_away(model), trained


def _count(parameter: torch.nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)  # bitsandbytes packs two weights into a byte
    if state is not None:
        return int(state.shape.numel())
    return int(
        getattr(parameter, "ds_numel", parameter.numel())
    )  # ZeRO-3 leaves 0 of what is elsewhere; a DTensor says all


def bare_model(model: ModelSection, head: Head = "causal_lm") -> PreTrainedModel:
    """The model's shape on the meta device: it takes no memory and reads no weights."""
    config = _with_head(load_config(model), head, ())
    with torch.device("meta"):
        shape = CLASSES[head].from_config(config, trust_remote_code=model.trust_remote_code)
        return _with_rows_for_tokens(shape, model, head)


def identity(model: ModelSection, loaded: PreTrainedModel | PeftModel) -> dict[str, Any]:
    """What says later that a base is the same base: name, revision (the commit, from the Hub) and, for what is on this
    machine, a fingerprint of its config and its weights."""
    path = Path(model.name_or_path).expanduser()
    if not path.exists():
        commit = getattr(loaded.config, "_commit_hash", None)
        return {"name_or_path": model.name_or_path, "revision": commit or model.revision, "fingerprint": None}
    parent = parent_of(path)
    known = {"name_or_path": str(path.absolute()), "revision": None, "fingerprint": fingerprint(path, model.gguf_file)}
    return {**known, "parent": parent} if parent else known


def parent_of(folder: Path) -> dict[str, Any] | None:
    """Which version of the registry a folder of weights is, or was made of, and the base of that version; None for any
    other folder."""
    if not folder.is_dir():
        return None
    lineage = read_json(folder / LINEAGE)
    if lineage is not None:
        return {key: lineage[key] for key in ("version", "adapter", "base")}
    manifest = read_json(folder.parent / MANIFEST) or {}
    if not isinstance(manifest, dict) or not {"name", "version", "base"} <= manifest.keys():
        return None
    return {"version": f"{manifest['name']}@{manifest['version']}", "base": manifest["base"]}


def unlike(base: Mapping[str, Any], model: ModelSection) -> str | None:
    """Which base was another one than `model` names, for a person; None where they are the same."""
    path = Path(model.name_or_path).expanduser()
    if base["fingerprint"] is not None and path.exists():
        return (
            None
            if fingerprint(path, model.gguf_file) == base["fingerprint"]
            else f"other weights ({base['name_or_path']})"
        )
    if base["name_or_path"] == model.name_or_path and (model.revision or base["revision"]) == base["revision"]:
        return None
    at = f" at revision {base['revision']}" if base["revision"] else ""
    return f"{base['name_or_path']}{at}, and this is {model.name_or_path}"


def base_of(manifest: Mapping[str, Any], owner: str) -> ModelSection:
    """How to load the base that `owner`, an adapter, was trained on. Raises FtlibError when it is another one by
    now."""
    base = manifest["base"]
    path = Path(base["name_or_path"])
    section = ModelSection.model_validate(manifest["experiment"]["model"])
    if base["fingerprint"] is not None:
        if not path.exists():
            raise FtlibError(f"{owner} was trained on the base in {path}, which is gone: put it back there.")
        if fingerprint(path, section.gguf_file) != base["fingerprint"]:
            raise FtlibError(f"The base in {path} changed since {owner} was trained on it: put the old one back.")
    return section.model_copy(update={"name_or_path": base["name_or_path"], "revision": base["revision"]})


def fingerprint(path: Path, gguf_named: str | None = None) -> str:
    """sha256 over a model folder's config and weight files; of a GGUF file, its own."""
    file = gguf.gguf_file("model.name_or_path", str(path), gguf_named)
    if file is not None:
        return gguf.file_digest(file)
    digest = hashlib.sha256()
    for entry in sorted({path / "config.json", *(file for pattern in WEIGHTS for file in path.glob(pattern))}):
        digest.update(entry.name.encode())
        digest.update(bytes.fromhex(gguf.file_digest(entry)))
    return digest.hexdigest()


def _damaged(folder: Path) -> str | None:
    """Which weights of a folder are damaged, where some are: the library that reads them does not say."""
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        try:
            tensors(file)
        except InputError as error:
            return str(error)
    return None


@contextmanager
def _named(key: str, source: str) -> Iterator[None]:
    """Turns a library's many ways of not finding a model into one sentence that names the key."""
    if not Path(source).expanduser().exists():
        hub.look_once()
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        folder = Path(source).expanduser()
        reason = _damaged(folder) or str(error).strip().splitlines()[0]
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"{key}: '{source}' brings Python code of its own, and transformers does not know its kind without: "
                "it runs "
                "with model.trust_remote_code: true in an experiment, or with --trust, if you know where it comes from."
            ) from error
        if folder.is_dir():
            raise ConfigError(f"{key}: the folder '{source}' holds no usable model: {reason}") from error
        beside = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ConfigError(
            f"{key}: '{source}' is neither a folder nor a model that the Hub gives us: {reason}"
            f"{nearest(folder.name, beside)}"
        ) from error
