"""What a folder of weights holds, told without loading any of it: is it safe to load, and which engine can serve it.

Only headers and small JSON files are read, and no number in them is believed before the file itself agrees.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from ftlib.errors import InputError

Engine = Literal["bank", "vllm"]

CONFIG_BYTES = 2**20  # adapter_config.json; a hundred layers with a rank of their own take some kilobytes
HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
PICKLED = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack"})
CODE = b"PK\x03\x04"  # how torch.save begins; pickle itself begins with \x80 and its protocol
PROGRAMS = frozenset({".py", ".pyc", ".pyo", ".pyd", ".pth", ".so", ".dll", ".dylib", ".sh"})
DTYPES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}  # bits of each of safetensors' dtypes
DATA = ("tokenizer.json", "vocab.json", "model.safetensors.index.json")  # JSON that says nothing of code, and is large
WEIGHTS = "adapter_model.safetensors"  # PEFT's name
OF_A_BANK = ("lora_A.weight", "lora_B.weight")  # how the names of a bank's tensors end
VLLM_MAX_RANK = 512  # the largest value that vLLM takes for max_lora_rank


def check(owner: str, folder: Path, engine: Engine = "bank", max_rank: int | None = None) -> None:
    """Raises InputError where the weights under `folder` (adapter/ or model/) must not, or cannot, be served.

    That is: symbolic links, pickles under any name, damaged safetensors, a missing or oversized adapter_config.json, a
    rank above `max_rank`, and for `engine="vllm"` what vLLM has no kernel for.
    """
    _check_links(owner, folder)
    kind = "adapter" if (folder / "adapter").is_dir() else "model"
    for file in (folder / kind).rglob("*"):
        if file.is_file():
            _check_file(owner, file)
    files = sorted((folder / kind).glob("*.safetensors"))
    if not files:
        raise InputError(
            f"{owner} has no safetensors in {folder / kind}, and no other format is loaded: promote it anew."
        )
    if kind == "model":
        return
    config = adapter_config(owner, folder / kind)
    _check_rank(owner, config, files, max_rank if max_rank or engine != "vllm" else VLLM_MAX_RANK)
    if engine == "vllm" and (reason := why_not_vllm(config)):
        raise InputError(
            f"{owner} {reason}, which vLLM does not serve: use the bank engine, or promote it with --merged."
        )


def check_code(owner: str, folder: Path, trusted: bool) -> None:
    """Raises InputError where a folder of weights brings code with it, unless who made it is trusted."""
    why = None if trusted else why_code(folder)
    if why is not None:
        raise InputError(
            f"{owner} {why}, which would run when it is loaded, and it was not made by you: --trust loads it all the "
            "same, "
            "if you know where it comes from."
        )


def why_code(folder: Path) -> str | None:
    """How a folder of weights would run code of its own, to be read after its name; None where it would not."""
    for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        if file.suffix.lower() in PROGRAMS - PICKLED:
            return f"holds {file.name}"
        if file.suffix.lower() == ".json" and file.name not in DATA:
            why = _why_code_in(file)
            if why is not None:
                return f"has {why} in its {file.name}"
    return None


def _why_code_in(file: Path) -> str | None:
    """What transformers and PEFT would import at the word of a configuration."""
    text = file.read_bytes() if file.stat().st_size <= 64 * CONFIG_BYTES else b""
    try:
        waiting = [json.loads(text.decode())]
    except (ValueError, RecursionError):
        return "no JSON" if file.name.endswith("config.json") else None
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("auto_map"):
                return "auto_map"
            if value.get("megatron_config"):
                return "megatron_config"
            kernel = value.get("attn_implementation") or value.get("_attn_implementation")
            if isinstance(kernel, str) and "/" in kernel:
                return f"attn_implementation: {kernel[:60]} (a program of the Hub)"
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return None


def adapter_config(owner: str, folder: Path) -> dict[str, Any]:
    """The content of `adapter_config.json`. Raises InputError where it is missing, oversized or no JSON object."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise InputError(f"{owner} has no adapter_config.json in {folder}: promote it anew.")
    if file.stat().st_size > CONFIG_BYTES:
        raise InputError(
            f"{owner} has an adapter_config.json of more than {CONFIG_BYTES:,} bytes, which no adapter has."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{owner} has an adapter_config.json that is no JSON object: promote it anew.")
    return config


def why_not_vllm(config: dict[str, Any]) -> str | None:
    """What vLLM's LoRA layers cannot compute of this adapter, to be read after its name; None when they can."""
    if config.get("peft_type") != "LORA":
        return f"is no LoRA adapter (peft_type {config.get('peft_type')})"
    if config.get("use_dora"):
        return "is a DoRA adapter"
    if config.get("modules_to_save"):
        return f"trains whole modules besides LoRA (modules_to_save: {', '.join(config['modules_to_save'])})"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "trains biases"
    return None


def why_not_banked(owner: str, folder: Path) -> str | None:
    """What keeps the adapter in a folder out of a bank (W + s B A of linear layers, and nothing else); None for one
    that it holds. Reads the names of its tensors, and no tensor.

    This is the one answer to that question: the gate checks by it what the endpoint serves by it. Raises InputError for
    a file that is not there or is none.
    """
    config = adapter_config(owner, folder)
    if (why := why_not_vllm(config)) is not None:
        return f"it {why}"
    if config.get("target_parameters"):
        return "it trains parameters that are no linear layer (target_parameters)"
    file = folder / WEIGHTS
    if not file.is_file():
        raise InputError(f"{folder} has no {WEIGHTS}, and no other format is loaded.")
    others = [name for name in tensors(file)[0] if not name.endswith(OF_A_BANK)]
    return f"it trains more than A and B ({others[0]})" if others else None


def tensors(file: Path) -> tuple[dict[str, Any], int]:
    """(name -> its dtype, shape and byte range, where the bytes start) of a safetensors file, without its tensors.

    The header is eight bytes of length and that much JSON, whatever the dtype: numpy cannot read bfloat16. Raises
    InputError for what is none.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            header = json.loads(opened.read(min(length, size, HEADER_BYTES)).decode())
            header.pop("__metadata__", None)
            whole = 8 + length + _end_of(header) == size
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            whole = False
    if not whole:
        raise InputError(f"{file} is no safetensors file, or was cut short or damaged.")
    return header, 8 + length


def _end_of(header: dict[str, Any]) -> int:
    """How many bytes of tensors a header tells of. Raises ValueError, TypeError or LookupError where they do not fit
    one after the other: the library itself would find that out in its own words."""
    end = 0
    for begin, stop, entry in sorted(
        ((*entry["data_offsets"], entry) for entry in header.values() if _is_tensor(entry)), key=lambda span: span[:2]
    ):
        bits = math.prod(entry["shape"]) * DTYPES[entry["dtype"]]
        if begin != end or (stop - begin) * 8 != bits:
            raise ValueError(entry)
        end = stop
    return end


def _is_tensor(entry: dict[str, Any]) -> bool:
    numbers = [*entry["shape"], *entry["data_offsets"]]
    if len(entry["data_offsets"]) != 2 or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(entry)
    return True


def check_tensors(folder: Path) -> None:
    """Raises InputError, naming the file, for a damaged safetensors file of a folder: its library does not say
    which."""
    for file in sorted(folder.glob("*.safetensors")):
        tensors(file)


def moves_its_base(file: Path) -> bool:
    """Whether an adapter's B matrices, or all its tensors where it has no B, hold anything but zeros."""
    header, start = tensors(file)
    decisive = [entry for key, entry in header.items() if "lora_B" in key or "lora_embedding_B" in key]
    with file.open("rb") as opened:
        for entry in decisive or header.values():
            begin, end = entry["data_offsets"]
            opened.seek(start + begin)
            if opened.read(end - begin).strip(b"\0"):
                return True
    return False


def _check_links(owner: str, folder: Path) -> None:
    """A link could lead anywhere, and lead elsewhere tomorrow: a version must not change."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{owner} holds a symbolic link ({path}): put the file itself there, or promote it anew.")


def _check_file(owner: str, file: Path) -> None:
    """Raises InputError for pickles, whatever they are called, and for safetensors that are none."""
    if file.suffix == ".safetensors":
        tensors(file)
        return
    with file.open("rb") as opened:
        start = opened.read(4)
    pickle = len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5
    if file.suffix.lower() in PICKLED or start == CODE or pickle:
        raise InputError(
            f"{owner} holds {file.name}, which may be a pickle and run code when it is read: only safetensors are "
            "loaded."
        )


def _check_rank(owner: str, config: dict[str, Any], files: list[Path], limit: int | None) -> None:
    """The config may say one rank and the tensors have another: both count, since memory is taken for the tensors."""
    if limit is None:
        return
    told = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    headers = [tensors(file)[0] for file in files]
    real = [
        size for header in headers for key, entry in header.items() if ".lora_A" in key for size in entry["shape"][:1]
    ]
    rank = max((number for number in (*told, *real) if isinstance(number, int)), default=0)
    if rank > limit:
        raise InputError(
            f"{owner} has rank {rank}, and this engine's maximum is {limit}: raise the maximum, or promote it "
            "with --merged."
        )
