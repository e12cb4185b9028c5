"""ftlib's sweep against a plain Ray Tune + TRL script: the same trials on the same two cores, whole processes timed.

    python benchmarks/against_plain_tune.py [--cases short natural asha dpo distill] [--runs 1] [--pack off]

and `ftlib train` of one LoRA against a TRL script, without Ray and with two threads (`--cases train`).

Both train the same LoRA trials (rank, alpha and learning rate from the same lists, in the same order) of a small Llama
on the same rows, evaluate at the end and leave an adapter each. The rival gets what a careful person gives it: one
thread a trial, two trials at a time, libraries imported inside the trial, no checkpoints but the last adapter. It
starts a process for each trial, as Ray Tune does by default; `--reuse` gives it Tune's `reuse_actors` too.

    short     16 trials x 60 steps, 0.5M parameters, batch 4 of 32 tokens        natural   16 x 60, 1M, batch 8, mean 41
    asha      as natural, 32 trials, both with ASHA                              dpo       8 trials, 0.5M, batch 4 pairs
    distill   8 trials, a 0.5M student of a 2M teacher, logits at T = 2
    smollm    6 trials x 12 steps, SmolLM2-135M-Instruct, batch 8 of SST-2 as chats (../shared/data), 100 held out
    smollm-asha   the same with 12 trials, and ASHA on both sides
    smollm-dpo    4 trials x 6 steps of 2 pairs of dpo_en_demo (at most 512 tokens), 16 held out
    train     1 trial x 24 steps, rows and base of smollm
    minilm    8 trials x 60 steps, all-MiniLM-L6-v2 as a classifier of SST-2, batch 8, 400 held out
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
VOCABULARY = 1024
SMALL = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 8, "num_attention_heads": 4}
MEDIUM = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4}
LARGE = {"hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 6, "num_attention_heads": 4}
REAL = {"ratios": [2], "steps": 12, "batch": 8, "method": "sft"}
CASES: dict[str, dict[str, Any]] = {
    "short": {"shape": SMALL, "trials": 16, "batch": 4, "lengths": (32, 32), "method": "sft", "goal": 6},
    "natural": {"shape": MEDIUM, "trials": 16, "batch": 8, "lengths": None, "method": "sft", "goal": 4},
    "asha": {"shape": MEDIUM, "trials": 32, "batch": 8, "lengths": None, "method": "sft", "asha": True, "goal": 5},
    "dpo": {"shape": SMALL, "trials": 8, "batch": 4, "lengths": None, "method": "dpo", "goal": 4},
    "distill": {"shape": SMALL, "trials": 8, "batch": 8, "lengths": None, "method": "distill", "goal": 5},
    "smollm": {**REAL, "trials": 6, "ranks": [4, 8, 16], "goal": 3},
    "smollm-asha": {**REAL, "trials": 12, "asha": True, "first_rung": 1 / 12, "goal": 5},
    "smollm-dpo": {**REAL, "trials": 4, "steps": 6, "batch": 2, "method": "dpo", "length": 512, "goal": 3},
    "train": {**REAL, "trials": 1, "ranks": [8], "steps": 24, "alone": True, "goal": 2.5},
    "minilm": {"trials": 8, "ratios": [2], "batch": 8, "method": "classify", "goal": 3},
}
RANKS, RATIOS, RATES = [2, 4, 8, 16], [1, 2], [3e-4, 1e-3, 3e-3, 1e-2]
SMOLLM = ROOT / ".cache" / "models" / "smollm2-135m-instruct"
MINILM = ROOT / ".cache" / "models" / "minilm-l6-v2"
DATA = ROOT.parent / "shared" / "data"
REVIEWS, PAIRS = DATA / "sst2_train.tsv", DATA / "dpo_en_demo.json"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, help="of each trial (default: as above)")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--pack", default="auto")
    parser.add_argument("--only", choices=("ours", "plain"))
    options = parser.parse_args()
    for name in options.cases:
        base = MINILM if CASES[name]["method"] == "classify" else SMOLLM
        if "shape" not in CASES[name] and not (base.is_dir() and REVIEWS.is_file()):
            print(f"{name}: left out, since there is no {base} or no {REVIEWS}")
            continue
        case = {"steps": 60, "length": 128} | CASES[name] | {"reuse": options.reuse, "pack": options.pack}
        case |= {"steps": options.steps} if options.steps else {}
        folder = Path(tempfile.mkdtemp(prefix=f"ftlib-bench-{name}-"))
        make_inputs(folder, case)
        compare(name, case, folder, options)


def compare(name: str, case: dict[str, Any], folder: Path, options: Any) -> None:
    ours, plain = [], []
    for number in range(options.runs):  # in turn, so that a slow minute of the machine hits both
        if options.only != "plain":
            seconds, said = timed(ours_command(folder, case, number), folder)
            ours.append(seconds)
            packed = next((line for line in said.splitlines() if line.startswith("pack width")), "not packed")
            print(f"{name}: ftlib {seconds:.1f} s ({'train' if case.get('alone') else packed})", flush=True)
        if options.only != "ours":
            seconds, _ = timed(plain_command(folder, case, number), folder)
            plain.append(seconds)
            print(f"{name}: plain {rival_of(case)} {seconds:.1f} s", flush=True)
    if ours and plain:
        ratios = sorted(b / a for a, b in zip(ours, plain, strict=True))
        print(f"{name}: {statistics.median(ratios):.2f}x (goal {case['goal']}x), {options.runs} run(s)", flush=True)


def rival_of(case: dict[str, Any]) -> str:
    """What the rival is made of."""
    trainer = "Trainer" if case["method"] == "classify" else "TRL"
    return trainer if case.get("alone") else f"Ray Tune + {trainer}"


def timed(command: list[str], folder: Path) -> tuple[float, str]:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "FTLIB_HOME": str(folder / f"home-{time.monotonic_ns()}"),  # no cache of an earlier run
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the rival has its libraries compiled by pip
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return time.perf_counter() - started, done.stdout


def points(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials: rank x ratio x rate, the first so many."""
    ranks = case.get("ranks", RANKS)
    grid = [(r, ratio, rate) for rate in RATES for ratio in case.get("ratios", RATIOS) for r in ranks]
    return [{"r": r, "alpha": r * ratio, "rate": rate} for r, ratio, rate in grid[: case["trials"]]]


def make_inputs(folder: Path, case: dict[str, Any]) -> None:
    """The base as `folder`/base, and rows to train on and to evaluate."""
    if "shape" in case:
        make_words(folder, case)
    elif case["method"] == "classify":
        (folder / "base").symlink_to(MINILM)
        rows = [{"text": text.strip(), "label": ("negative", "positive")[int(label)]} for text, label in reviews(2400)]
        write_rows(folder, {"train": rows[:2000], "eval": rows[2000:]})
    else:
        (folder / "base").symlink_to(chat_model())
        write_rows(folder, pairs() if case["method"] == "dpo" else chats())


def reviews(count: int) -> list[list[str]]:
    """The first so many of SST-2: a sentence, and 0 or 1."""
    return [line.rsplit("\t", 1) for line in REVIEWS.read_text(encoding="utf-8").splitlines()[:count]]


def chat_model() -> Path:
    """SmolLM2 as transformers reads it."""
    from ftlib.models import gguf

    file = gguf.gguf_file("model.name_or_path", str(SMOLLM), None)
    assert file is not None
    return gguf.as_folder("model.name_or_path", file)


def chats() -> dict[str, list[dict[str, Any]]]:
    """Reviews of films to be judged in one word."""
    rows = [
        {
            "prompt": turn("user", f"Is this review positive or negative? One word.\n\n{text.strip()}"),
            "completion": turn("assistant", ("negative", "positive")[int(label)]),
        }
        for text, label in reviews(500)
    ]
    return {"train": rows[:400], "eval": rows[400:]}


def pairs() -> dict[str, list[dict[str, Any]]]:
    """Real preferences, of one question each."""
    rows = [
        {
            "prompt": turn("user", pair["conversations"][0]["value"]),
            **{key: turn("assistant", pair[key]["value"]) for key in ("chosen", "rejected")},
        }
        for pair in json.loads(PAIRS.read_text(encoding="utf-8"))
        if len(pair["conversations"]) == 1
    ]
    return {"train": rows[:64], "eval": rows[64:80]}


def turn(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def make_words(folder: Path, case: dict[str, Any]) -> None:
    """A base (and a teacher) with random weights, a tokenizer of one token a word, and rows of random words."""
    script = (
        "import json, sys, torch\n"
        "from tokenizers import Tokenizer, models, pre_tokenizers\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
        "folder, shapes, size = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])\n"
        "words = {'<end>': 0, '<pad>': 1, **{f'w{n}': n for n in range(2, size)}}\n"
        "tokenizer = Tokenizer(models.WordLevel(words, unk_token='<pad>'))\n"
        "tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()\n"
        "fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token='<end>', pad_token='<pad>')\n"
        "for name, shape in shapes.items():\n"
        "    torch.manual_seed(0)\n"
        "    config = LlamaConfig(vocab_size=size, num_key_value_heads=2, tie_word_embeddings=True,\n"
        "        max_position_embeddings=512, bos_token_id=None, eos_token_id=0, pad_token_id=1, **shape)\n"
        "    LlamaForCausalLM(config).save_pretrained(f'{folder}/{name}')\n"
        "    fast.save_pretrained(f'{folder}/{name}')\n"
    )
    shapes = {"base": case["shape"]} | ({"teacher": LARGE} if case["method"] == "distill" else {})
    subprocess.run([sys.executable, "-c", script, str(folder), json.dumps(shapes), str(VOCABULARY)], check=True)
    draw = random.Random(0)
    write_rows(
        folder, {name: [row_of(case, draw) for _ in range(count)] for name, count in (("train", 400), ("eval", 64))}
    )


def write_rows(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> None:
    """A JSON Lines file for each part."""
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row_of(case: dict[str, Any], draw: random.Random) -> dict[str, str]:
    def words(count: int) -> str:
        return "".join(f" w{draw.randrange(2, VOCABULARY)}" for _ in range(count))

    low, high = case["lengths"] or (0, 0)
    length = low if low == high and low else min(max(int(draw.lognormvariate(3.6, 0.5)), 8), 120)
    prompt, answer = words(length // 2).strip(), words(length - length // 2 - 1)
    if case["method"] == "dpo":
        return {"prompt": prompt, "chosen": answer, "rejected": words(length - length // 2 - 1)}
    return {"prompt": prompt, "completion": answer}


def ours_command(folder: Path, case: dict[str, Any], number: int) -> list[str]:
    """The same points as a grid: rank x ratio x rate."""
    rates = sorted({point["rate"] for point in points(case)})
    method: dict[str, Any] = {"type": case["method"]}
    if case["method"] == "distill":
        method |= {"kind": "logit", "teacher": str(folder / "teacher"), "temperature": 2.0, "alpha": 0.5}
    experiment = {
        "name": "bench",
        "model": {"name_or_path": str(folder / "base")},
        "data": {
            "train": str(folder / "train.jsonl"),
            "eval": str(folder / "eval.jsonl"),
            "max_length": case["length"],
            "template": "none" if "shape" in case else "auto",
        },
        "method": method,
        "adapter": {"type": "lora", "r": 8, "lora_alpha": 16},
        "train": {
            "max_steps": case["steps"],
            "per_device_train_batch_size": case["batch"],
            "lr_scheduler_type": "linear",
            "eval_strategy": "end",
        },
        "track": {"wandb": None, "tensorboard": False},
        "storage": str(folder / f"ours-{number}"),
    }
    if case.get("alone"):
        (point,) = points(case)
        experiment["adapter"] |= {"r": point["r"], "lora_alpha": point["alpha"]}
        experiment["train"]["learning_rate"] = point["rate"]
    else:
        experiment["sweep"] = {
            "space": {
                "adapter.r": case.get("ranks", RANKS),
                "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": case.get("ratios", RATIOS)},
                "train.learning_rate": rates,
            },
            "search": {"type": "grid"},
            "scheduler": scheduler(case),
            "baseline": False,
            "pack": case["pack"],
        }
    path = folder / f"bench-{number}.yaml"
    path.write_text(yaml.safe_dump(experiment))
    return [sys.executable, "-m", "ftlib.cli", "train" if case.get("alone") else "sweep", str(path)]


def scheduler(case: dict[str, Any]) -> dict[str, Any]:
    """With few steps the first rung is said, as the rival's grace period is."""
    if not case.get("asha"):
        return {"type": "none"}
    return {"type": "asha", "unit": "steps", **({"first_rung": case["first_rung"]} if "first_rung" in case else {})}


def plain_command(folder: Path, case: dict[str, Any], number: int) -> list[str]:
    arguments = {
        "folder": str(folder),
        "points": points(case),
        "storage": str(folder / f"plain-{number}"),
        "threads": os.cpu_count() if case.get("alone") else 1,
        **{key: case.get(key) for key in ("steps", "batch", "method", "asha", "reuse", "length")},
    }
    script = "plain_trl.py" if case.get("alone") else "plain_tune.py"
    return [sys.executable, str(Path(__file__).with_name(script)), json.dumps(arguments)]


if __name__ == "__main__":
    main()
