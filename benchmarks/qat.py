"""What `train.qat` keeps when a model is exported in fewer bits, against rounding after a plain training.

    python benchmarks/qat.py [--to int4 int8] [--how lora full] [--steps 24]

SmolLM2-135M-Instruct of the wheel learns two thirds of experiments/data/maths.jsonl; the last third is measured, as a
mean over answer tokens. `trained` is the loss of the plain training, `rounded` that of its export, `qat, rounded` that
of the export of as many steps with train.qat. Exports are made as `ftlib export --to` makes them: merged, then rounded
by torchao through transformers. It needs the extra `quantize`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import one_trial
from forgetting import SMOLLM, cut, experiment
from transformers import AutoModelForCausalLM, TorchAoConfig

from ftlib.config import Experiment
from ftlib.models.adapters.merge import merge
from ftlib.models.base import load_tokenizer
from ftlib.models.rounded import torchao_config
from ftlib.registry.answer_loss import loss_on, read_rows

RATES = {"lora": 5e-4, "full": 5e-5}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(SMOLLM))
    parser.add_argument("--to", nargs="+", default=["int4", "int8"])
    parser.add_argument("--how", nargs="+", default=["lora", "full"])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    print("how   to    trained  rounded  qat, rounded", flush=True)
    with tempfile.TemporaryDirectory() as name:
        files = cut(Path(name))
        for how in options.how:
            options.full, options.rate = how == "full", RATES[how]
            asked = experiment(options, files, "none")
            plain = trained(asked, Path(name) / how)
            before = loss(plain, None, asked, files)
            for to in options.to:
                with_qat = asked.model_copy(update={"train": asked.train.model_copy(update={"qat": to})})
                other = trained(with_qat, Path(name) / f"{how}-{to}")
                found = before, loss(plain, to, asked, files), loss(other, to, asked, files)
                print(f"{how:4s}  {to:4s}  " + "  ".join(f"{number:7.4f}" for number in found), flush=True)


def trained(asked: Experiment, folder: Path) -> Path:
    """The folder of the whole model that a trial leaves."""
    weights = one_trial.trained(asked, folder)
    if asked.adapter is None:
        return weights
    merge(weights, asked.model, folder / "merged")
    return folder / "merged"


def loss(folder: Path, to: Any, asked: Experiment, files: dict[str, str]) -> float:
    """The mean loss of an answer's token, of the model as it is or as it is exported."""
    how = {} if to is None else {"quantization_config": TorchAoConfig(torchao_config(to))}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **how).eval()
    rows = read_rows(Path(files["new measured"]), asked, load_tokenizer(asked.model))
    found = loss_on(rows, model, (), "it")
    return found.total / found.counted


if __name__ == "__main__":
    main()
