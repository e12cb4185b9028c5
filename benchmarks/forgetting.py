"""What EWC and replay keep of an old task while a new one is learned (`method.ewc`, `data.replay`).

    python benchmarks/forgetting.py --model MODEL --steps 20 --how none ewc=10 ewc=1000 replay=0.25 [--full] [--first N]

The old task is experiments/data/instructions.jsonl, the new one experiments/data/maths.jsonl. Each is cut: two thirds
are trained on (or, of the old one, held by EWC or replayed), and the last third is measured. Figures are means over
answer tokens, of the model as it is at the end of training. Without a model it is SmolLM2-135M-Instruct of the wheel.
With --first, a model that does not know the old task learns it first, in N steps of full fine-tuning; the old task is
then measured on the rows that it has learned.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import one_trial

from ftlib.config import Experiment, ModelSection
from ftlib.models.base import load_model, load_tokenizer, where
from ftlib.registry.agreement import beside_base
from ftlib.registry.answer_loss import loss_on, read_rows

ROOT = Path(__file__).parents[1]
DATA = ROOT / "experiments" / "data"
SMOLLM = ROOT / ".cache" / "models" / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(SMOLLM))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--full", action="store_true", help="train the whole model, and not a LoRA of rank 16")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--how", nargs="+", default=["none", "ewc=100"], help="none, ewc=WEIGHT, replay=FRACTION")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = cut(Path(folder))
        if options.first:
            options.model = learned_first(options, files, Path(folder))
        print("how           new task  old task  seconds of the processor")
        print(f"{'base':12s}  {'  '.join(measured(options, files, None))}", flush=True)
        for how in options.how:
            before = seconds()
            trial = trained(options, files, how, Path(folder) / how)
            print(f"{how:12s}  {'  '.join(measured(options, files, trial))}  {seconds() - before:.0f}", flush=True)


def learned_first(options: Any, files: dict[str, str], folder: Path) -> str:
    """The model after the old task."""
    own = {**files, "new train": files["old train"]}
    first = argparse.Namespace(**{**vars(options), "full": True, "steps": options.first})
    files["old measured"] = files["old train"]
    return str(trained(first, own, "none", folder / "first"))


def cut(folder: Path) -> dict[str, str]:
    """Files to train on and files to measure on, by `new` and `old`."""
    files = {}
    for task, name in (("new", "maths"), ("old", "instructions")):
        lines = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
        rows = [{"prompt": row.get("prompt") or row["question"], "completion": row.get("completion") or row["answer"]}
                for row in lines]  # fmt: skip
        for part, chosen in (("train", rows[:32]), ("measured", rows[32:])):
            file = folder / f"{task}-{part}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in chosen))
            files[f"{task} {part}"] = str(file)
    return files


def experiment(options: Any, files: dict[str, str], how: str) -> Experiment:
    """The new task, learned in this way."""
    name, _, value = how.partition("=")
    data: dict[str, Any] = {"train": files["new train"], "eval_split": 0, "max_length": 128}
    method: dict[str, Any] = {"type": "sft"}
    if name == "ewc":
        method["ewc"] = {"weight": float(value), "data": files["old train"]}
    if name == "replay":
        data["replay"] = {"train": files["old train"], "fraction": float(value)}
    adapter = None if options.full else {"type": "lora", "r": 16, "lora_alpha": 32}
    train = {"learning_rate": options.rate, "max_steps": options.steps, "per_device_train_batch_size": options.batch}
    train |= {"eval_strategy": "end", "warmup_steps": 0.1}
    tree = {"name": "forgetting", "model": {"name_or_path": options.model}, "data": data, "method": method}
    return Experiment.parse({**tree, "adapter": adapter, "train": train, "scale": {"engine": "trainer"}})


def trained(options: Any, files: dict[str, str], how: str, folder: Path) -> Path:
    """The trial's weights."""
    return one_trial.trained(experiment(options, files, how), folder)


def measured(options: Any, files: dict[str, str], weights: Path | None) -> list[str]:
    """The mean loss of an answer's token, on the new task and on the old one."""
    asked = experiment(options, files, "none")
    whole = weights is not None and options.full
    section = ModelSection(name_or_path=str(weights)) if whole else ModelSection(name_or_path=where(asked.model))
    model: Any = load_model(section)
    if weights is not None and not options.full:
        model = beside_base(model, weights, "the trial")
    tokenizer = load_tokenizer(asked.model)
    losses = [
        loss_on(read_rows(Path(files[f"{task} measured"]), asked, tokenizer), model.eval(), (), "it")
        for task in ("new", "old")
    ]
    return [f"{loss.total / loss.counted:8.4f}" for loss in losses]


def seconds() -> float:
    """What this process has had of the processor."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
