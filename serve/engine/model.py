"""A base model as the endpoint holds it, and the tokenizers of the versions that it answers for."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel

import ftlib.models.adapters.fusion  # noqa: F401 (registers the tuners that PEFT lacks)
from ftlib.config import ModelSection
from ftlib.errors import FtlibError
from ftlib.models.adapter_files import why_not_banked
from ftlib.models.adapters.merge import MERGEABLE
from ftlib.models.base import load_model, load_tokenizer
from ftlib.models.onednn import freeze_linears
from ftlib.registry import registry
from ftlib.registry.bases import base_of
from ftlib.registry.version import Version
from serve.engine.messages import Ask, Refusal, Refused, writer
from serve.engine.slots import Adapter
from serve.engine.templates import Templates
from serve.engine.text import Decoder, Spelling

log = logging.getLogger("ray.serve")
TOKENIZERS = 16  # kept, the last used
NO_TOKENIZER = ("adapter_config.json", "README.md")
POSITIONS = ("position_embeddings", "embed_positions", "wpe")  # what models call their table of positions

_templates = Templates()


class Loaded:
    """The weights of a base with, where a version cannot stand beside others, that version's adapter in it.

    model    what a step of the batch calls
    reads    what reads a prompt where that is another: PEFT's wrapper, for adapters that put virtual tokens first
    context  how many tokens fit, or None
    vocabulary  how many token ids there are rows for
    """

    def __init__(self, version: Version, threads: int = 1) -> None:
        """Raises FtlibError when the base changed since training, or an adapter has no safetensors."""
        torch.set_num_threads(threads)
        registry.check_loadable(version)
        model: Any
        if version.kind == "model":
            model = load_model(in_folder(version))
        else:
            model = load_model(base_of(version.manifest, version.id))
            if why_not_banked(version.id, version.weights):
                model = PeftModel.from_pretrained(model, version.weights, low_cpu_mem_usage=True)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # A quantized model is where it was quantized, and refuses to be moved.
        whole = (model if getattr(model, "is_quantized", False) else model.to(device)).eval()
        config = whole.active_peft_config if isinstance(whole, PeftModel) else None
        self.reads = whole if config is not None and config.is_prompt_learning else None
        self.model: Any = whole.get_base_model() if isinstance(whole, PeftModel) else whole
        beside = isinstance(whole, PeftModel) and not self.reads  # an adapter inside the base's layers
        if beside and _merges(whole) and not getattr(self.model, "is_quantized", False):
            self.model, beside = whole.merge_and_unload(), False
        if device.type == "cpu" and not beside:
            freeze_linears(self.model, gradients=False, dtypes=(torch.float32, torch.bfloat16))
        length, self.vocabulary = room(self.model), table(self.model)
        self.context = None if length is None else length - (getattr(config, "num_virtual_tokens", 0) or 0)
        end = self.model.generation_config.eos_token_id
        self.ends = frozenset([end] if isinstance(end, int) else end or [])
        self.dtype: torch.dtype = self.model.dtype
        self._modules = {name for name, _ in self.model.named_modules()}

    def check(self, adapter: Adapter) -> None:
        """Raises FtlibError for an adapter of layers that the base does not have."""
        missing = sorted(adapter.targets - self._modules)
        if missing:
            raise FtlibError(f"{adapter.id} adapts {missing[0]}, which its base does not have: promote it again.")

    @property
    def bytes_per_token(self) -> int:
        """What one token of one row takes in the cache."""
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return int(2 * config.num_hidden_layers * heads * dim * self.dtype.itemsize)


class Tokenizers:
    """Each version's own, loaded at its first request. Versions whose tokenizers are the same files share one: a
    hundred adapters of one base mostly do, and a large vocabulary takes a hundred megabytes. Used from several threads.
    """

    def __init__(self, size: int = TOKENIZERS) -> None:
        self._size = size
        self._contents: dict[str, str] = {}  # by who writes: a version is never written again
        self._loaded: OrderedDict[str, Any] = OrderedDict()  # by content
        self._spellings: dict[Any, Spelling] = {}
        self._decoders: dict[Any, Decoder] = {}
        self._lock = threading.Lock()

    def spelling(self, tokenizer: Any) -> Spelling:
        """What its tokens are by themselves."""
        with self._lock:
            if tokenizer not in self._spellings:
                self._spellings[tokenizer] = Spelling(tokenizer)
            return self._spellings[tokenizer]

    def decoder(self, tokenizer: Any) -> Decoder:
        """What makes text of its tokens."""
        with self._lock:
            if tokenizer not in self._decoders:
                self._decoders[tokenizer] = Decoder(tokenizer)
            return self._decoders[tokenizer]

    def get(self, version: Version, bare: bool = False) -> Any:
        """The version's own; with `bare`, its base's."""
        name = writer(version, bare)
        content = self._contents.get(name) or _content(version, bare)
        with self._lock:
            self._contents[name] = content
            if content in self._loaded:
                self._loaded.move_to_end(content)
                return self._loaded[content]
        tokenizer = _base_tokenizer(version) if bare else load_tokenizer(in_folder(version))
        with self._lock:
            self._loaded[content] = tokenizer
            while len(self._loaded) > self._size:
                _, gone = self._loaded.popitem(last=False)
                self._decoders.pop(gone, None)
                self._spellings.pop(gone, None)
        return tokenizer


def _base_tokenizer(version: Version) -> Any:
    """The tokenizer of the base that a version was trained on, with the base's own chat template; where it has none,
    with the version's, which training used."""
    tokenizer = load_tokenizer(base_of(version.manifest, version.id))
    if tokenizer.chat_template is None:
        tokenizer.chat_template = load_tokenizer(in_folder(version)).chat_template
    return tokenizer


def _content(version: Version, bare: bool) -> str:
    """A digest of all that a tokenizer is read from: what a version holds besides its weights and what they are; of a
    base's, what names the base too."""
    manifest = version.manifest
    model = manifest["experiment"]["model"]
    about = [model.get("trust_remote_code"), *([manifest["base"], model] if bare else [])]
    seen = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for file in sorted(version.weights.glob("*")):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in NO_TOKENIZER:
            seen.update(f"{file.name}:{file.stat().st_size}:".encode() + file.read_bytes())
    return seen.hexdigest()


def encode(
    ask: Ask, tokenizer: Any, context: int | None, vocabulary: int | None = None, until: float = math.inf
) -> list[list[int]]:
    """The prompts as token ids, of which the model has a table of `vocabulary`; by `until`, a time of `time.monotonic`.

    Raises Refused for one that is empty, too long, or outside of the table, and for a chat that cannot be written out.
    """
    param = "prompt" if ask.messages is None else "messages"
    if ask.messages is not None:
        text = _templates.render(ask, tokenizer, until)
        found = [tokenizer(text, add_special_tokens=False)["input_ids"]]
    else:
        found = [tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt for prompt in ask.prompts]
    for ids in found:
        if not ids:
            raise Refused(Refusal(f"{param}: there is not one token in it: give some text.", param))
        if context is not None and len(ids) >= context:
            limit = f"this model takes at most {context - 1} before its answer"
            message = f"{param}: it is {len(ids)} tokens long, but {limit}: shorten it."
            raise Refused(Refusal(message, param, "context_length_exceeded"))
        _check_ids(ids, param, tokenizer, vocabulary)
    _check_ids(ask.logit_bias, "logit_bias", tokenizer, vocabulary)
    return [list(ids) for ids in found]


def _check_ids(ids: Iterable[int], param: str, tokenizer: Any, vocabulary: int | None) -> None:
    """Raises Refused for an id that the model has no row for. A tokenizer may have more than its model: tokens that
    were added to it and not to the table."""
    most = len(tokenizer) if vocabulary is None else min(len(tokenizer), vocabulary)
    wrong = next((token for token in ids if not 0 <= token < most), None)
    if wrong is not None:
        raise Refused(Refusal(f"{param}: token ids go from 0 to {most - 1} here, and {wrong} is none.", param))


@contextmanager
def sentences(version: Version) -> Iterator[None]:
    """An adapter or a tokenizer that cannot be loaded is the server's trouble, told in its own sentence. Where it lies
    on the server is no client's business."""
    try:
        yield
    except FtlibError as error:
        log.error("%s cannot be loaded.", version.id, exc_info=error)
        message = str(error)
        for where in (str(version.path) if version.is_here else version.id, str(version.place)):
            message = message.replace(where, version.id)
        raise Refused(Refusal(message, "model", "model_not_loadable", 422)) from error


def in_folder(version: Version) -> ModelSection:
    """The version's own folder as a model: its tokenizer and, for a full model, its weights, in the trained dtype."""
    section = ModelSection.model_validate(version.manifest["experiment"]["model"])
    kept = {"dtype": section.dtype, "attn_implementation": section.attn_implementation}
    return ModelSection.model_validate(
        {"name_or_path": str(version.weights), "trust_remote_code": section.trust_remote_code, **kept}
    )


def room(model: Any) -> int | None:
    """How many tokens a model has positions for; None where it counts without a table. A table may begin with rows that
    are no position's (OPT's two, RoBERTa's up to its padding's)."""
    rows = [getattr(model.config.get_text_config(), "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in POSITIONS:
            before = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            rows.append(module.num_embeddings - before)
    return min((count for count in rows if count is not None), default=None)


def table(model: Any) -> int:
    """How many token ids a model has a row for."""
    return int(model.get_input_embeddings().weight.shape[0])


def _merges(model: Any) -> bool:
    """Whether the adapter can be computed into the base: a faster step, and the same model."""
    return str(model.active_peft_config.peft_type.value) in MERGEABLE
