"""An experiment drawn up from a look at the data: short, commented, and ready for `ftlib check`."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ftlib.config.methods import Distill
from ftlib.data.look import NAMES, Look
from ftlib.errors import InputError

CHATS = ("messages", "sharegpt", "alpaca", "prompt_completion")
# What each goal learns from, the most telling format first.
GOALS: dict[str, tuple[str, ...]] = {
    "prefer": ("preference", "kto"),
    "chat": CHATS,
    "distill": CHATS,
    "classify": ("classification",),
    "pretrain": ("text",),
}
METHODS = {"preference": "dpo", "kto": "kto", "classification": "classify", "text": "pretrain"}
# Where `make install` puts two small models, and their names on the Hub.
SMALL = {
    "writes": (".cache/models/smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "reads": (".cache/models/minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
}
READS_AT_MOST = 256  # tokens, of the small encoder
CHARACTERS_A_TOKEN = 3  # English has about four, code and other languages fewer
LONG = 1024  # tokens: such rows are computed two at a time
LENGTHS = (64, 8192)  # the least and the most that is proposed for data.max_length
WRITTEN_OUT = ("data", "train", "sweep", "sweep.space")  # sections with a line for each key; others stand on one line
CPU_STEPS = 100
EVALUATED = {"fast": 500, "slow": 100}  # rows are enough: on a GPU or of a small encoder, and else


def formats_of(goal: str | None) -> tuple[str, ...]:
    """The formats that are looked for in the data."""
    return GOALS[goal] if goal else tuple(NAMES)


@dataclass
class Draft:
    """`tree` is the experiment; `comments` stand behind its keys, by dotted path."""

    name: str
    tree: dict[str, Any]
    comments: dict[str, str]

    def text(self, schema: Path) -> str:
        """The YAML file, its first line the one by which editors find the schema."""
        lines = [f"# yaml-language-server: $schema={schema}"]
        for key, value in self.tree.items():
            lines += self._lines(key, value, key, 0)
        return "\n".join(lines) + "\n"

    def _lines(self, key: str, value: Any, path: str, depth: int) -> list[str]:
        comment = f"  # {self.comments[path]}" if path in self.comments else ""
        if isinstance(value, dict) and path in WRITTEN_OUT:
            inner = [line for k, v in value.items() for line in self._lines(k, v, f"{path}.{k}", depth + 1)]
            return [f"{'  ' * depth}{key}:{comment}", *inner]
        return [f"{'  ' * depth}{key}: {_flow(value)}{comment}"]


def draft(
    seen: Look,
    *,
    goal: str | None = None,
    model: str | None = None,
    teacher: str | None = None,
    name: str | None = None,
) -> Draft:
    """An experiment for what was seen. Raises InputError where something is asked for that the rows do not give."""
    if goal == "distill" and teacher is None:
        raise InputError(
            "--goal distill needs --teacher: a model, registry:NAME, or the URL of a server that it is on."
        )
    if goal != "distill" and teacher is not None:
        raise InputError("--teacher is for --goal distill: add that, or leave the teacher out.")
    drawn = Draft(name or _name(seen.source), {}, {})
    classify = seen.format == "classification"
    base = model or small_model("reads" if classify else "writes")
    encoder = classify and model is None
    data = _data(seen, drawn, encoder)
    drawn.tree = {
        "name": drawn.name,
        "model": {"name_or_path": base},
        "data": data,
        "method": _method(seen, goal, teacher),
        "adapter": None if seen.format == "text" else {"type": "lora", "r": 16, "lora_alpha": 32},
        "train": _train(seen, drawn, data["max_length"]),
        **_scale(),
        "sweep": _sweep(seen, drawn),
    }
    if model is None:
        drawn.comments["model"] = "small enough for a CPU; --model names another"
    if "teacher_name" in drawn.tree["method"]:
        drawn.comments["method"] = "teacher_name: how the model is called at that URL"
    if seen.labels:
        least = min(seen.labels.items(), key=lambda item: item[1])
        drawn.comments["method"] = f"{len(seen.labels)} labels; the rarest, {least[0]!r}, has {least[1]:,} rows"
    if seen.format == "text":
        drawn.comments["adapter"] = "all weights are trained"
    return drawn


def small_model(kind: str) -> str:
    """The small model that writes, or the one that reads: here, in ftlib's own checkout, or on the Hub."""
    inside, hub = SMALL[kind]
    places = (Path(inside), Path(__file__).parents[2] / inside)
    return next((str(place) for place in places if place.is_dir()), hub)


def _name(source: str) -> str:
    stem = Path(source).stem if "://" in source or Path(source).suffix else Path(source).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64] or "experiment"


def _data(seen: Look, drawn: Draft, encoder: bool) -> dict[str, Any]:
    tokens = seen.length(99) / CHARACTERS_A_TOKEN + 32
    length = min(max(LENGTHS[0], -(-int(tokens) // 64) * 64), READS_AT_MOST if encoder else LENGTHS[1])
    most = EVALUATED["fast" if _has_gpu() or encoder else "slow"]
    share = 0.2 if seen.rows < 100 else 0.1 if seen.rows * 0.1 <= most else round(most / seen.rows, 4)
    drawn.comments |= {
        "data.max_length": f"tokens; the longest row has about {seen.lengths[-1] // 4:,}, 'ftlib check' counts them",
        "data.eval_split": f"about {max(1, round(seen.rows * share)):,} rows to evaluate on",
        "data.train": f"{seen.rows:,} rows{'' if seen.whole else ' and more'}",
    }
    section: dict[str, Any] = {"train": seen.source, "format": seen.format}
    if seen.renamed:
        section["columns"] = seen.renamed
    if len({label.lower() for label in seen.labels}) < len(seen.labels):
        section["labels"] = {"case": "lower"}
        drawn.comments["data.labels"] = "some differ in case alone"
    if seen.bad:
        section["on_bad_row"] = "skip"
        drawn.comments["data.on_bad_row"] = f"{seen.bad:,} rows cannot be used, first {_line(seen.first_bad)}"
    return section | {"max_length": length, "eval_split": share}


def _method(seen: Look, goal: str | None, teacher: str | None) -> dict[str, Any]:
    if goal != "distill":
        return {"type": METHODS.get(seen.format, "sft")}
    assert teacher is not None
    if teacher.startswith(("http://", "https://")):
        return {"type": "distill", "kind": "sequence", "teacher": teacher, "teacher_name": "default"}
    return {"type": "distill", "kind": Distill.model_fields["kind"].default, "teacher": teacher}


def _train(seen: Look, drawn: Draft, length: int) -> dict[str, Any]:
    epochs = next(epochs for most, epochs in ((200, 5), (1000, 3), (10_000, 2), (10**12, 1)) if seen.rows < most)
    drawn.comments["train.num_train_epochs"] = f"as suits {seen.rows:,} rows"
    return {
        "learning_rate": RATES[METHODS.get(seen.format, "sft")],
        "num_train_epochs": epochs,
        **_steps(seen, drawn, epochs),
        **_batch(seen, length),
        "warmup_steps": 0.1,
    }


def _steps(seen: Look, drawn: Draft, epochs: int) -> dict[str, int]:
    """How many steps a drafted trial makes. A CPU takes a second and more for a step, so there the number fits into the
    first hour."""
    steps = seen.rows * epochs // (8 if seen.rows >= 64 else 4)
    if _has_gpu() or steps <= CPU_STEPS:
        return {}
    drawn.comments["train.max_steps"] = f"of about {steps:,}: there is no GPU here; leave it out where there is"
    return {"max_steps": CPU_STEPS}


def _batch(seen: Look, length: int) -> dict[str, int]:
    """The rows of a step: eight, four where the data has few rows, and two where rows are long."""
    rows = 8 if seen.rows >= 64 else 4
    if length <= LONG:
        return {"per_device_train_batch_size": rows}
    return {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "gradient_accumulation_steps": rows // 2}


# Where the learning rate begins: LoRA's for answers and labels, lower where preferences or all weights are trained.
RATES = {"sft": 1e-3, "classify": 1e-3, "dpo": 5e-5, "kto": 5e-5, "pretrain": 5e-5}


def _sweep(seen: Look, drawn: Draft) -> dict[str, Any]:
    method = METHODS.get(seen.format, "sft")
    rate = RATES[method]
    space: dict[str, Any] = {"train.learning_rate": {"min": _round(rate / 5), "max": _round(rate * 3), "log": True}}
    compared = {}
    if method == "dpo":  # losses of different beta are on different scales
        space["method.beta"] = [0.05, 0.1, 0.3]
        compared = {"metric": "eval_rewards/accuracies", "mode": "max"}
    elif method != "pretrain":
        space["adapter.r"] = [8, 16, 32]
    drawn.comments |= {
        "sweep": "'ftlib train' leaves it aside",
        "sweep.num_samples": "with 16 and more, terminator: {type: gain} ends it when no other is worth its price",
        "sweep.prior": "points known to be good come first: from tables, and from your own runs",
    }
    if method != "pretrain":
        drawn.comments["sweep.space.train.learning_rate"] = "'ftlib lr-find' finds a range for your rows in minutes"
    return {"space": space, "num_samples": 8, "prior": "auto", **compared}


def _round(value: float) -> float:
    return float(f"{value:.1g}")


def _scale() -> dict[str, Any]:
    return {"scale": {"resources_per_worker": {"CPU": 4, "GPU": 1}}} if _has_gpu() else {}


def _has_gpu() -> bool:
    """Whether NVIDIA's driver is here; torch would take seconds to say so."""
    return shutil.which("nvidia-smi") is not None


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _line(text: str) -> str:
    return " ".join(text.split())[:120]
