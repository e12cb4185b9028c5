"""What a prior is worth: evaluations until a sweep has reached the best of 32 random trials, with and without.

    python benchmarks/priors.py record FOLDER      ten sweeps of 32 trials and ten range tests -> curves/sweeps.json
    python benchmarks/priors.py replay             evaluations to reach the best of 32 random trials
    python benchmarks/priors.py rates              whether the range of lr-find has the best rate of the full sweep

FOLDER has alpaca_en_demo.json, gsm8k_train.jsonl, sst2_train.tsv and dpo_en_demo.json (LLaMA-Factory's demos, GSM8K,
SST-2). `record` makes a small Llama of its own and trains it on all of their texts, so that it is a base of the tests'
size that knows something; each sweep is on one kind of rows. Its points are drawn as in `asha_replay.py`.

A replay of a target sweep: a TPE of Optuna's proposes, and a proposal is answered by the recorded trial that is nearest
to it and not taken yet. The earlier runs are the other recorded sweeps.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("curves") / "sweeps.json"
TRIALS, STEPS, ROWS, LENGTH = 32, 60, 400, 64
SPACE = {
    "adapter.r": [2, 4, 8, 16, 32],
    "adapter.lora_alpha": {"ratio_of": "adapter.r", "choices": [1, 2, 4]},
    "train.learning_rate": {"min": 1e-5, "max": 10**-1.5, "log": True},
}


def texts(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """(prompt, answer) by the kind of the rows."""
    alpaca = json.loads((folder / "alpaca_en_demo.json").read_text())
    gsm = [json.loads(line) for line in (folder / "gsm8k_train.jsonl").read_text().splitlines()]
    sst = [line.split("\t") for line in (folder / "sst2_train.tsv").read_text().splitlines()[1:]]
    dpo = json.loads((folder / "dpo_en_demo.json").read_text())
    short = sorted(alpaca, key=lambda row: len(row["output"]))
    third = len(short) // 3
    kinds = {
        "alpaca-short": [(row["instruction"], row["output"]) for row in short[:third]],
        "alpaca-middle": [(row["instruction"], row["output"]) for row in short[third : 2 * third]],
        "alpaca-long": [(row["instruction"], row["output"]) for row in short[2 * third :]],
        "gsm-steps": [(row["question"], row["answer"]) for row in gsm],
        "gsm-number": [(row["question"], row["answer"].rpartition("#### ")[2]) for row in gsm],
        "gsm-question": [("Ask for a sum.", row["question"]) for row in gsm],
        "sst-label": [(row[0], "positive" if row[1].strip() == "1" else "negative") for row in sst],
        "sst-text": [("Write a line of a review.", row[0]) for row in sst],
        "dpo-chosen": [(row["conversations"][-1]["value"], row["chosen"]["value"]) for row in dpo],
        "dpo-question": [("Ask something.", row["conversations"][-1]["value"]) for row in dpo],
    }
    return {name: [(one[:300], other[:300]) for one, other in rows if other.strip()] for name, rows in kinds.items()}


def make_base(folder: Path, rows: list[tuple[str, str]]) -> None:
    """A two-layer Llama of 0.3 M weights and a byte-level tokenizer, trained on the texts for 300 steps."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    written = [f"<|user|>{prompt}<|assistant|>{answer}<|end|>" for prompt, answer in rows]
    tokenizer.train_from_iterator(
        written, trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet)
    )
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}"
        "{{ eos_token if m['role'] == 'assistant' else '' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=template
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(fast), tie_word_embeddings=True, **shape))
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=3e-3), random.Random(0)
    ids = [fast(text, truncation=True, max_length=LENGTH)["input_ids"] for text in written]
    for _ in range(300):
        batch = fast.pad({"input_ids": draw.sample(ids, 16)}, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"the base's loss on all texts is {float(loss):.3f}")
    model.save_pretrained(folder)


def experiment_of(name: str, base: Path, data: Path, **sweep: Any) -> Any:
    from ftlib.config import Experiment

    return Experiment.parse(
        {
            "name": name,
            "model": {"name_or_path": str(base)},
            "data": {"train": str(data), "max_length": LENGTH, "eval_split": 0.15},
            "method": {"type": "sft"},
            "adapter": {"type": "lora", "r": 8, "lora_alpha": 16},
            "train": {
                "max_steps": STEPS,
                "per_device_train_batch_size": 4,
                "per_device_eval_batch_size": 32,
                "eval_strategy": "end",
                "logging_steps": 1000,
            },
            "sweep": {"space": SPACE, **sweep},
        }
    )


def record(folder: Path) -> None:
    import torch

    from ftlib.data import prepare
    from ftlib.models.base import load_tokenizer
    from ftlib.pack.rate_test import rates_between, try_rates

    torch.set_num_threads(1)
    work, kinds = Path(tempfile.mkdtemp(prefix="ftlib-priors-")), texts(folder)
    make_base(work / "base", [row for rows in kinds.values() for row in random.Random(0).sample(rows, 200)])
    told: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, rows in kinds.items():
        file = work / f"{name}.jsonl"
        if told.get(name, {}).get("trials"):  # recorded before; the base is the same each time
            continue
        some = random.Random(1).sample(rows, min(ROWS, len(rows)))
        file.write_text("".join(json.dumps({"prompt": one, "completion": two}) + "\n" for one, two in some))
        experiment = experiment_of(name, work / "base", file)
        data = prepare(experiment.data, "answers", load_tokenizer(experiment.model))
        rates = told.get(name, {}).get("rates")
        if rates is None:
            tried = try_rates(experiment, data, rates_between(1e-5, 10**-1.5))
            rates = [(one.rate, one.before, one.after) for one in tried]
        trials = list(train(experiment, data, list(draws(random.Random(name)))))  # no two sweeps have a point in common
        told[name] = {"trials": trials, "rates": rates}
        FILE.write_text(json.dumps(told).replace("], [", "],\n[").replace("}, {", "},\n{"))
        best = min(trials, key=lambda trial: trial["loss"])
        print(f"{name}: {len(trials)} trials, the best {best['loss']:.3f} at {best['point']}", flush=True)


def draws(draw: random.Random) -> Iterator[dict[str, Any]]:
    for _ in range(TRIALS):
        yield {
            "adapter.r": draw.choice(SPACE["adapter.r"]),  # type: ignore[arg-type]
            "adapter.lora_alpha": draw.choice([1, 2, 4]),
            "train.learning_rate": 10 ** draw.uniform(-5, -1.5),
        }


def train(experiment: Any, data: Any, points: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each point with its last loss; those that broke are left out."""
    from ftlib.pack.engine import Pack
    from ftlib.pack.frozen_base import FrozenBase
    from ftlib.run.context import Rungs, Setting
    from ftlib.run.directory import Run

    run = Run.create(tempfile.mkdtemp(prefix="ftlib-priors-"), "x", "", {})
    setting = Setting(
        run=str(run.path), data=str(data.path), resolved=experiment.to_dict(), rungs=Rungs("steps", (STEPS,))
    )
    pack, losses = Pack(FrozenBase(experiment, data, slots=16, rank=32), setting), dict[int, float]()
    waiting = list(enumerate(points))
    while waiting or pack.members:
        while waiting and pack.free:
            number, point = waiting.pop(0)
            params = experiment.resolve_ratios(point)
            pack.join(f"{number:03d}", params, lambda row, number=number: losses.update({number: row["eval_loss"]}))
        pack.tick()
    for number, point in enumerate(points):
        if math.isfinite(losses.get(number, math.nan)):
            yield {"point": point, "loss": round(losses[number], 5)}


# --- replays ----------------------------------------------------------------------------------------------------------


def evaluations(told: dict[str, Any], target: str, known: str, seed: int) -> int:
    """How many trials a TPE needs until it is as good as the best of the target's 32, or within 1 % of it.

    `known`: `nothing`, `tables`, `runs` (the other recorded sweeps), or `both`.
    """
    import optuna

    from ftlib.sweeps.prior import Past, from_past, from_tables
    from ftlib.sweeps.published import Shape
    from ftlib.sweeps.search import make_search

    experiment = experiment_of("replay", Path("base"), Path("data"), search={"type": "optuna", "seed": seed})
    leaves, first = experiment.sweep.leaves, []
    if known in ("runs", "both"):
        first = from_past(leaves, [past(name, told[name], Past) for name in told if name != target], 3)
    if known in ("tables", "both"):
        first += from_tables(experiment, Shape("llama", 64))[0][: 4 - len(first)]
    search, left = make_search(experiment, "replay", first=first), list(told[target]["trials"])
    bar = min(trial["loss"] for trial in left) * 1.01
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number in range(1, len(told[target]["trials"]) + 1):
        point = search.suggest(str(number)) or {}
        answer = min(left, key=lambda trial: distance(leaves, point, trial["point"]))
        left.remove(answer)
        search.on_trial_complete(str(number), {"eval_loss": answer["loss"], "step": 1})
        if answer["loss"] <= bar:
            return number
    return len(told[target]["trials"])


def past(name: str, sweep: dict[str, Any], kind: Any) -> Any:
    order = sorted(sweep["trials"], key=lambda trial: trial["loss"])
    return kind(name, [trial["point"] for trial in order], [(place + 0.5) / len(order) for place in range(len(order))])


def distance(leaves: Any, one: dict[str, Any], other: dict[str, Any]) -> float:
    from ftlib.sweeps.prior import apart

    return apart(leaves, one, other)


def recorded() -> dict[str, Any]:
    return {name: sweep for name, sweep in json.loads(FILE.read_text()).items() if sweep["trials"]}


def replay(seeds: int) -> None:
    told = recorded()
    for known in ("nothing", "tables", "runs", "both"):
        means = {name: statistics.mean(evaluations(told, name, known, seed) for seed in range(seeds)) for name in told}
        each = ", ".join(f"{name} {mean:.1f}" for name, mean in means.items())
        print(f"{known:8s} {statistics.mean(means.values()):5.2f} evaluations on average ({each})", flush=True)


def rates() -> None:
    from ftlib.pack.rate_test import Tried, suggested

    told, inside = recorded(), 0
    for name, sweep in told.items():
        found = suggested([Tried(rate, [], before, after) for rate, before, after in sweep["rates"]])
        best = min(sweep["trials"], key=lambda trial: trial["loss"])["point"]["train.learning_rate"]
        has = found is not None and found.low <= best <= found.high
        inside += has
        print(f"{name:14s} best rate of the sweep {best:.2e}, suggested {found}, inside {has}")
    print(f"inside in {inside} of {len(told)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=("record", "replay", "rates"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    if options.action == "record":
        record(options.folder)
    elif options.action == "replay":
        replay(options.seeds)
    else:
        rates()


if __name__ == "__main__":
    main()
