"""A pack's step against the bound of any LoRA training: the frozen base's forward, and the gradient of its inputs.

    python benchmarks/pack_step.py [--threads 1] [--device cpu] [--shape small|natural|135m|1b|8b] [--widths 1 2 4 8 16]

For each width: seconds of a step (forward, backward, all optimizers), how many times the throughput of one trial, and
its ratio to a forward and input-gradient of the base alone over the same tokens with the same attention. Memory is the
peak of what torch holds (on a CPU, of the process's resident memory above the base). Engine alone: no Ray, no TRL.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from ftlib.config import Experiment
from ftlib.pack.engine import Pack
from ftlib.pack.frozen_base import FrozenBase
from ftlib.pack.token_layout import Block
from ftlib.run.context import Setting
from ftlib.run.directory import Run

# hidden, inner, layers, heads, kv heads, vocabulary; rows a batch; tokens a row (None: natural lengths, mean 41)
SHAPES: dict[str, Any] = {
    "small": ((64, 176, 8, 4, 2, 1024), 4, 32),
    "natural": ((128, 352, 4, 4, 2, 1024), 8, None),
    "b1": ((2048, 5632, 22, 32, 8, 32000), 1, 512),
    "135m": ((576, 1536, 30, 9, 3, 49152), 8, 256),  # SmolLM2
    "1b": ((2048, 8192, 16, 32, 8, 128256), 2, 512),  # Llama 3.2
    "8b": ((4096, 14336, 32, 32, 8, 128256), 1, 512),  # Llama 3.1
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring, each width")
    parser.add_argument("--other-batches", action="store_true", help="each trial its own seed, so no batch is shared")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = Path(tempfile.mkdtemp(prefix="ftlib-pack-"))
    setting, data = make(folder, options)
    base = FrozenBase(setting.experiment(), data, 1, options.rank, options.device)
    one = None
    print(f"{options.shape}, rank {options.rank}, {options.threads} threads, {options.device}, {options.dtype}")
    print("width |  step ms |  x one trial | step / bound | tokens/s | memory above the base, MiB (a trial)")
    for width in options.widths:
        found = measured(base, setting, width, options.seconds, options.other_batches)
        step, held = found["step"], found["memory"] / 2**20
        one = one or step
        print(
            f"{width:5} | {step * 1e3:8.2f} | {one * width / step:12.2f} | {step / found['bound']:12.2f} | "
            f"{found['tokens'] / step:8.0f} | {held:.0f} ({held / width:.1f})",
            flush=True,
        )
    if options.profile:
        profile(packed(base, setting, options.widths[-1], options.other_batches))


def packed(base: FrozenBase, setting: Setting, width: int, other_batches: bool) -> Pack:
    """A pack of so many trials, in place of what the base carried before."""
    base.bank.resize(width)
    pack = Pack(base, setting)
    for number in range(width):
        seed = {"train.seed": number} if other_batches else {}
        pack.join(f"{width}-{number}", {"train.learning_rate": 1e-4 * (number + 1), **seed}, lambda row: None)
    return pack


def measured(
    base: FrozenBase, setting: Setting, width: int, seconds: float, other_batches: bool = False
) -> dict[str, Any]:
    """Of a pack of so many trials: seconds of a step and of the bound, tokens of a step, bytes above the base, and how
    many trials were computed together at the end (memory may have halved it)."""
    gc.collect()
    device = base.device
    before = memory(device)
    pack = packed(base, setting, width, other_batches)
    members = list(pack.members.values())
    step = timed(pack.tick, device, seconds)
    held, peak = memory(device, peak=True) - before, memory(device, peak=True)
    bound = timed(partial(bound_of, base, members), device, seconds)
    tokens = sum(len(member.block().ids) for member in members)
    return {
        "step": step,
        "bound": bound,
        "tokens": tokens,
        "memory": held,
        "peak": peak,
        "together": pack.width,
    }


def make(folder: Path, options: Any, weights: bool = True) -> tuple[Setting, Any]:
    """A base of random weights, and rows of random tokens of which the second half is the answer. Without `weights`
    there is its config alone."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    (hidden, inner, layers, heads, kv, vocabulary), rows, tokens = SHAPES[options.shape]
    tokens = getattr(options, "tokens", tokens)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        tie_word_embeddings=True,
    )
    if weights:
        LlamaForCausalLM(config).to(getattr(torch, options.dtype)).save_pretrained(folder / "base")
    else:
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(folder / "base")
    tokenizer = Tokenizer(models.WordLevel({"<end>": 0, "<pad>": 1, "a": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>").save_pretrained(
        folder / "base"
    )
    draw = np.random.default_rng(0)
    count = rows * 64
    lengths = np.full(count, tokens) if tokens else np.clip(draw.lognormal(3.6, 0.5, count).astype(int), 8, 128)
    ids = [draw.integers(2, vocabulary, size=length).tolist() for length in lengths]
    labels = [[-100] * (len(row) // 2) + row[len(row) // 2 :] for row in ids]  # the answer is half of it
    table = datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})
    report = type("Report", (), {"labels": (), "train_tokens": int(lengths.sum())})()
    data = type("Data", (), {"train": table, "eval": table.select(range(8)), "hash": "bench", "report": report})()
    data.chat_template, data.held_out = None, data.eval
    tree = {
        "name": "bench",
        "model": {"name_or_path": str(folder / "base"), "dtype": options.dtype},
        "data": {"train": "none.jsonl"},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": options.rank, "lora_alpha": 2 * options.rank},
        "train": {
            "max_steps": 10**6,
            "per_device_train_batch_size": rows,
            "logging_steps": 10**6,
            "eval_strategy": "end",
        },
    }
    run = Run.create(folder / "runs", "bench", "", {})
    resolved = Experiment.parse(tree).to_dict()
    return Setting(run=str(run.path), data="", resolved=json.loads(json.dumps(resolved))), data


def bound_of(base: FrozenBase, members: list[Any]) -> None:
    """Over the batches that come next, other ones each time, as the steps that are timed beside it."""
    frozen(base, [member.block() for member in members])
    for member in members:
        member.step, member.rows_of_step = member.step + 1, []


def frozen(base: FrozenBase, blocks: list[Block]) -> None:
    """Forward of the base alone over each trial's places, and the gradient of its embeddings: what LoRA cannot do
    without."""
    hook = base.model.get_input_embeddings().register_forward_hook(
        lambda module, args, out: out.detach().requires_grad_()
    )
    try:
        with base.computing([replace(block) for block in blocks], None) as outputs:  # copies: no batch is shared
            torch.autograd.backward([scored.logits.float().logsumexp(-1).sum() for scored in outputs])
    finally:
        hook.remove()


def timed(action: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """The best of some calls, in seconds, after one to warm up: the others were disturbed."""
    taken: list[float] = []
    for number in range(1000):
        _synchronize(device)
        started = time.perf_counter()
        action()
        _synchronize(device)
        if number:
            taken.append(time.perf_counter() - started)
        if len(taken) >= 3 and sum(taken) > seconds:
            break
    return min(taken)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(device: torch.device, peak: bool = False) -> int:
    """Bytes that torch holds on the device, or has held since it was last asked; of a CPU, of the whole process."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak:
        return int(torch.cuda.max_memory_allocated(device))
    torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.memory_allocated(device))


def profile(pack: Pack) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(5):
            pack.tick()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))


if __name__ == "__main__":
    main()
