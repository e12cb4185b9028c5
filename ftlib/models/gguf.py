"""A GGUF file as a base: dequantized once into an ordinary folder, by content, which then is what everything reads.

<FTLIB_HOME>/cache/gguf/<hash>/  config.json  model.safetensors  tokenizer.json ...  made_of_gguf.json

transformers reads the file; what it takes on trust is checked here: that the file is whole, that it has every weight
of the model that it describes, and that its text is cut into tokens as the model was taught.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ftlib.errors import ConfigError, nearest
from ftlib.files.atomic import write_json
from ftlib.files.computed_once import cached
from ftlib.files.json_files import read_json

VERSION = 1  # raise it when the same file comes to give another folder
TOKENS = "tokenizer.ggml.tokens"
SOURCE = "made_of_gguf.json"
PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")  # how llama.cpp names the parts of a file that it split
# `tokenizer.ggml.pre` says how text is cut before its merges. These cut each digit off, those as GPT-2 does; some more
# are in transformers' own table. Any other would be cut as GPT-2's, whatever the model was taught.
DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
AS_GPT2 = ("gpt-2", "gpt2", "phi-2", "jais", "olmo", "mpt", "roberta-bpe")


def gguf_file(key: str, source: str, named: str | None) -> Path | None:
    """The GGUF file that is meant by a local path: the file itself, the one `named` in a folder, or a folder's only
    one.

    None where `source` is an ordinary model or tokenizer. Raises ConfigError where no file, or more than one, could be
    meant.
    """
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise ConfigError(f"{key}: '{source}' is a file, but no GGUF one (.gguf): name the model's folder.")
        return _whole(key, path)
    ordinary = "tokenizer_config.json" if key == "model.tokenizer" else "config.json"
    if not path.is_dir() or (named is None and (path / ordinary).exists()):
        return None
    found = sorted(file.name for file in path.glob("*.gguf"))
    if named is not None:
        if not (path / named).is_file():
            raise ConfigError(f"model.gguf_file: there is no '{named}' in {path}.{nearest(named, found)}")
        return _whole(key, path / named)
    if len(found) > 1:
        raise ConfigError(
            f"{key}: '{source}' holds {len(found)} GGUF files: name one of them, {key}: {path / found[0]}."
        )
    return _whole(key, path / found[0]) if found else None


def _whole(key: str, path: Path) -> Path:
    part = PART.search(path.name)
    if part:
        raise ConfigError(
            f"{key}: '{path}' is one of {int(part[1])} parts: join them first (llama-gguf-split --merge)."
        )
    return path


def as_folder(key: str, file: Path) -> Path:
    """The folder of safetensors that a GGUF file is read from, made at its first use and kept.

    Raises ConfigError, in one sentence, for a damaged file and for an architecture that transformers does not read.
    """
    parts = {"version": VERSION, "content": file_digest(file)}
    return cached("gguf", parts, lambda folder: _dequantize(key, file, folder))


def check_tokenizer(key: str, folder: Path) -> None:
    """Raises ConfigError where `folder` was made of a GGUF file whose tokenizer could not be read."""
    reason = (read_json(folder / SOURCE) or {}).get("no_tokenizer")
    if reason:
        raise ConfigError(f"{key}: {reason}: name the original model's tokenizer with model.tokenizer.")


def file_digest(file: Path) -> str:
    """The SHA-256 of a file, in hex; read once as long as the file does not change."""
    told = file.stat()
    return _digest(file.absolute(), told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(file: Path, size: int, changed_ns: int) -> str:
    import hashlib

    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _dequantize(key: str, file: Path, folder: Path) -> None:
    """Weights as they are, or in float32 where they are quantized; a tokenizer where it can be had truly."""
    with _sentence(key, file), _quiet():
        facts, sizes = _read_header(file)
        architecture = str(facts["general.architecture"])
        model = _load(file, architecture, sizes)
        reason = _save_tokenizer(file, facts, model.config, folder)
        model.save_pretrained(folder)
    write_json(folder / SOURCE, {"gguf": str(file.absolute()), "no_tokenizer": reason})


def _read_header(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """(what the file says of its model and tokenizer, the weights' names and how many numbers each has).

    Raises ValueError for a file that is cut short: the last weight ends where the file does, or before.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)
    wanted = ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")
    facts = {name: reader.fields[name].contents() for name in wanted if name in reader.fields}
    if TOKENS in reader.fields:
        facts[TOKENS] = len(reader.fields[TOKENS].data)
    if "general.architecture" not in facts or not reader.tensors:
        raise ValueError("it names no architecture, or holds no weights")
    return facts, {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}


def _load(file: Path, architecture: str, sizes: dict[str, int]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if layers > len(sizes):
        raise ValueError(f"it speaks of {layers} layers, and holds {len(sizes)} weights")
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(config)
    wanted, there = sum(parameter.numel() for parameter in shape.parameters()), sum(sizes.values())
    if wanted > there:  # transformers would draw the rest at random
        raise ValueError(f"it holds {there:,} numbers of weights, and its {architecture} model has {wanted:,}")
    model, found = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=config, dtype="auto", output_loading_info=True
    )
    lacking = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    if lacking:
        raise ValueError(f"it lacks {len(lacking)} weights of its {architecture} model, such as {lacking[0]}")
    del model.config.quantization_config  # it is plain from here on
    model.hf_quantizer = None
    vars(model.config).pop("_model_name_or_path", None)  # the file's own title
    return model


def _save_tokenizer(file: Path, facts: dict[str, Any], config: Any, folder: Path) -> str | None:
    """Why there is no tokenizer that can be trusted; None where it was saved."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if "tokenizer.ggml.model" not in facts or TOKENS not in facts:
        return f"'{file}' holds no tokenizer"
    before = facts.get("tokenizer.ggml.pre")
    bytewise = facts["tokenizer.ggml.model"] == "gpt2"
    if bytewise and before not in (*DIGITS, *AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
        how = f"as '{before}' does" if before else "in a way that it does not tell"
        return f"the tokenizer of '{file}' cuts text {how}, which cannot be read from a GGUF file"
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=file.name)
    except ValueError as error:
        return f"the tokenizer of '{file}' cannot be read ({str(error).splitlines()[0]})"
    tokenizer._tokenizer = _as_told(tokenizer.backend_tokenizer, facts[TOKENS], bytewise and before in DIGITS)
    tokenizer.model_max_length = getattr(
        config.get_text_config(), "max_position_embeddings", tokenizer.model_max_length
    )
    tokenizer.save_pretrained(folder)
    return None


def _as_told(tokenizer: Any, size: int, digits: bool) -> Any:
    """Without the tokens that transformers adds for its own class, which the model has no rows for."""
    from tokenizers import Tokenizer, pre_tokenizers

    told = json.loads(tokenizer.to_str())
    told["added_tokens"] = [token for token in told["added_tokens"] if token["id"] < size]
    found = Tokenizer.from_str(json.dumps(told))
    if digits:
        splitter = pre_tokenizers.Digits(individual_digits=True)
        found.pre_tokenizer = pre_tokenizers.Sequence([splitter, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return found


@contextlib.contextmanager
def _sentence(key: str, file: Path) -> Iterator[None]:
    """A damaged file fails in the way of whatever reads it first."""
    try:
        yield
    except OSError:  # the disk's trouble, not the file's
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if "not supported" in reason or "Unknown gguf model_type" in reason:
            raise ConfigError(
                f"{key}: transformers does not read this kind of GGUF file, '{file}': {reason}."
            ) from error
        raise ConfigError(f"{key}: '{file}' is no whole GGUF file of a language model: {reason}.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars and notes of the libraries go nowhere."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
