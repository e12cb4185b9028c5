"""What each way of training takes on one GPU: peak memory and tokens a second, beside what `ftlib check` foretells.

    python benchmarks/gpu.py [--cases lora qlora full dpo] [--steps 30] [--batch 8] [--length 1024] [--out FOLDER]
    python benchmarks/gpu.py --tiny        # the same code on a CPU, with a model of a few thousand weights

The model has the shape of Llama 3.2 1B and random weights, so nothing is downloaded: memory and speed do not depend on
what the weights are. Each case is a process of its own and goes through `ftlib.training.trial.run_trial`, as a sweep's
trials do. Writes FOLDER/gpu.json (default: runs/gpu) and prints a table for docs/log.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LORA = {"type": "lora", "r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
# What each case sets beside the rest. Full fine-tuning keeps its weights in 32 bits and computes in bf16.
CASES: dict[str, dict[str, Any]] = {
    "lora": {"dtype": "bfloat16", "adapter": LORA},
    "qlora": {"dtype": "bfloat16", "quantization": "nf4", "adapter": LORA},
    "full": {"dtype": "float32", "adapter": None},
    "dpo": {"dtype": "bfloat16", "adapter": LORA, "method": {"type": "dpo"}},
}
# Llama 3.2 1B (its config.json), and a model of the same kind that trains in a second.
LARGE = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WARM_UP = 5  # steps that are not timed
WORDS = "the a of to and in that it is was for on are with as at be this from they have or by one had not but what"
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8, help="rows a step; of dpo, pairs are half as many")
    parser.add_argument("--length", type=int, default=1024, help="tokens a row")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
    parser.add_argument(
        "--tiny", action="store_true", help="a tiny model on the CPU: tries the script, measures nothing"
    )
    parser.add_argument("--keep-activations", action="store_true", help="no activation checkpointing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.steps, options.batch, options.length = min(options.steps, 8), min(options.batch, 4), 64
    elif not _has_cuda():
        sys.exit("benchmarks/gpu.py needs a CUDA GPU, but torch sees none: run it where there is one, or try --tiny.")
    if options.child:
        _child(options)
        return
    sys.exit(_all(options))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _all(options: argparse.Namespace) -> int:
    """Runs every case in a process of its own; 1 where one of them failed."""
    with tempfile.TemporaryDirectory(prefix="ftlib-gpu-") as folder:
        _start("make", options, Path(folder))
        results = [_measured(case, options, Path(folder)) for case in options.cases]
        machine = json.loads((Path(folder) / "machine.json").read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps({"machine": machine, "cases": results}, indent=2) + "\n")
    print(
        f"\n{machine['device']}, torch {machine['torch']}; {options.steps} steps of {options.batch} x {options.length}"
    )
    print(_table(results))
    print(f"{options.out / 'gpu.json'}")
    return int(any("error" in result for result in results))


def _measured(case: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    print(f"{case} ...", flush=True)
    error = _start(case, options, folder)
    path = folder / f"{case}.json"
    if not path.exists():
        return {"case": case, "error": error or "it left no result"}
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def _start(child: str, options: argparse.Namespace, folder: Path) -> str:
    """Runs this script as a child; the last line that it said, where it failed."""
    command = [sys.executable, __file__, "--child", child, "--folder", str(folder)]
    command += ["--steps", str(options.steps), "--batch", str(options.batch), "--length", str(options.length)]
    command += ["--tiny"] * options.tiny + ["--keep-activations"] * options.keep_activations
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "FTLIB_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if not done.returncode:
        return ""
    print(done.stdout[-2000:], file=sys.stderr)
    if child == "make":
        sys.exit("benchmarks/gpu.py: the model could not be made: see above.")
    return (done.stdout.strip().splitlines() or ["it ended without a word"])[-1]


def _table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| case | trained | peak GiB | `ftlib check` says | s a step | tokens/s | loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        if "error" in result:
            lines.append(f"| {result['case']} | {result['error']} | | | | | |")
            continue
        lines.append(
            f"| {result['case']} | {result['trained']:,} of {result['parameters']:,} | {result['peak_gib']:.2f} | "
            f"{result['estimated_gib']:.2f} | {result['seconds_a_step']:.3f} | {result['tokens_a_second']:,.0f} | "
            f"{result['losses'][0]:.3f} to {result['losses'][-1]:.3f} |"
        )
    return "\n".join(lines)


# --- in a child
# --------------------------------------------------------------------------------------------------------


def _child(options: argparse.Namespace) -> None:
    if options.child == "make":
        make(options)
        return
    result = _train(options.child, options)
    (options.folder / f"{options.child}.json").write_text(json.dumps(result))


def make(options: argparse.Namespace) -> None:
    """The base, its tokenizer, and rows that fill `length` tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=TEMPLATE
    )
    fast.save_pretrained(options.folder / "base")
    config = LlamaConfig(
        **(TINY if options.tiny else LARGE),
        max_position_embeddings=max(options.length, 128),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    config.dtype = torch.bfloat16
    torch.manual_seed(0)
    with torch.device("cpu" if options.tiny else "cuda"):
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(options.folder / "base")
    draw = random.Random(0)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS.split(), k=words))

    count = max(64, 2 * options.batch)
    rows = [{"prompt": text(options.length // 4), "completion": text(options.length)} for _ in range(count)]
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": text(options.length)} for row in rows]
    for name, values in (("answers", rows), ("pairs", pairs)):
        (options.folder / f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    device = f"{platform.processor() or platform.machine()} (--tiny: not a measurement)"
    if not options.tiny:
        device = f"{torch.cuda.get_device_name()} of {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
    (options.folder / "machine.json").write_text(json.dumps({"device": device, "torch": torch.__version__}))


def experiment_of(case: str, options: argparse.Namespace) -> dict[str, Any]:
    sets = CASES[case]
    pairs = sets.get("method", {}).get("type") == "dpo"
    batch = max(1, options.batch // 2) if pairs else options.batch
    return {
        "name": case,
        "model": {
            "name_or_path": str(options.folder / "base"),
            "dtype": sets["dtype"],
            "quantization": sets.get("quantization"),
        },
        "data": {
            "train": str(options.folder / ("pairs.jsonl" if pairs else "answers.jsonl")),
            "max_length": options.length,
            "eval_split": 0.1,
        },
        "method": sets.get("method", {"type": "sft"}),
        "adapter": sets["adapter"],
        "train": {
            "learning_rate": 2e-5 if sets["adapter"] is None else 2e-4,
            "max_steps": options.steps,
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": batch,
            "lr_scheduler_type": "constant",
            "activation_checkpointing": not options.keep_activations,
            "logging_steps": 1,
            "eval_strategy": "end",
        },
        "scale": {"resources_per_worker": {"CPU": 1} if options.tiny else {"CPU": 1, "GPU": 1}},
        "track": {"wandb": None, "tensorboard": False},
        "storage": str(options.folder / "runs"),
    }


def _train(case: str, options: argparse.Namespace) -> dict[str, Any]:
    from ftlib.config import Experiment
    from ftlib.data import prepare
    from ftlib.models.base import load_tokenizer
    from ftlib.run import context
    from ftlib.run.directory import Run
    from ftlib.training.estimate import estimate
    from ftlib.training.trial import run_trial

    context.PACKAGES = tuple(name for name in context.PACKAGES if is_installed(name))  # a trial needs no ray
    experiment = Experiment.parse(experiment_of(case, options))
    data = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model))
    foretold = estimate(experiment, data.report)
    run = Run.create(experiment.storage, case, "", {"experiment": experiment.to_dict()})
    run.trial("000").path.mkdir()
    shared = context.Setting(run=str(run.path), data=str(data.path), resolved=experiment.to_dict())
    run_trial(shared, "000", {}, lambda report: None)
    trial = run.trial("000")
    rows = [row for row in trial.metrics() if "loss" in row]
    first, last = rows[min(WARM_UP, len(rows) - 2)], rows[-1]
    seconds, steps = last["seconds"] - first["seconds"], last["step"] - first["step"]
    return {
        "case": case,
        "parameters": trial.manifest["total_parameters"],
        "trained": trial.manifest["trainable_parameters"],
        "peak_gib": _peak_gib(options.tiny),
        "estimated_gib": foretold.memory_gib,
        "seconds_a_step": seconds / steps,
        "tokens_a_second": (last["tokens"] - first["tokens"]) / seconds,
        "losses": [row["loss"] for row in rows],
        "experiment": experiment.to_dict(),
    }


def is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _peak_gib(tiny: bool) -> float:
    """Of the GPU's memory, what tensors took at the most; on a CPU, of the whole process."""
    if tiny:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    import torch

    return torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    main()
