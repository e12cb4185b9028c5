"""What the benchmarks of serving share: a Llama of random weights, its adapters, an endpoint that serves them.

The base is 512 wide and has 6 layers (21M parameters). Each adapter has rank 16 on all linear layers. An answer has 48
tokens to a prompt of about 24.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ADAPTERS, RANK, PROMPT, NEW = 16, 16, 24, 48
SHAPE = {
    "vocab_size": 8000,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def model(seed: int = 0) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    made = LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()
    made.lm_head.weight.data[1] = 0  # no answer ends by itself
    return made


def lora(seed: int, rank: int = RANK) -> Any:
    """PEFT's adapter, with a B that says something."""
    import torch
    from peft import LoraConfig

    torch.manual_seed(seed)
    return LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")


def world(folder: Path, adapters: int = ADAPTERS, rank: int = RANK) -> list[str]:
    """The base and its adapters in a registry; the names."""
    import torch
    from peft import get_peft_model
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from ftlib.files.atomic import write_json
    from ftlib.models.base import fingerprint
    from ftlib.registry import registry
    from ftlib.run.directory import Run

    os.environ["FTLIB_HOME"] = str(folder / "home")
    base = folder / "base"
    plain = model()
    plain.save_pretrained(base)
    words = {f"w{number}": number for number in range(SHAPE["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w0", eos_token="w1", pad_token="w1")
    fast.save_pretrained(base)
    run, names = Run.create(folder / "runs", "bench", "", {}), []
    tuned = get_peft_model(plain, lora(0, rank))
    for number in range(adapters):
        trial = run.trial(f"{number:03d}")
        torch.manual_seed(number)
        for name, part in tuned.named_parameters():
            if "lora_A" in name:
                torch.nn.init.kaiming_uniform_(part, a=5**0.5)
            elif "lora_B" in name:
                torch.nn.init.normal_(part, std=0.02)
        tuned.save_pretrained(trial.path / "adapter")
        fast.save_pretrained(trial.path / "adapter")
        identity = {"name_or_path": str(base), "revision": None, "fingerprint": fingerprint(base)}
        section = {"model": {"name_or_path": str(base), "dtype": "float32"}}
        write_json(trial.path / "manifest.json", {"kind": "adapter", "base": identity, "experiment": section})
        trial.set_state("finished")
        registry.register(run, trial, f"a{number}")
        names.append(f"a{number}")
    return names


def started(folder: Path, adapters: int = ADAPTERS, rank: int = RANK, **engine: Any) -> tuple[str, list[str]]:
    names = world(folder, adapters, rank)
    return listening(names, **engine), names


def listening(names: list[str], **engine: Any) -> str:
    """An endpoint that serves them on two cores; its url."""
    import socket

    import ray

    from serve.front import app

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return app.start(names, port=port, replicas={"num_cpus": 2}, engine=engine)


def replicas_memory() -> int:
    """Bytes, of all processes of this machine's Serve that answer."""
    import psutil

    found = psutil.process_iter(["cmdline"])
    return sum(
        process.memory_info().rss for process in found if "ServeReplica" in " ".join(process.info["cmdline"] or [])
    )
