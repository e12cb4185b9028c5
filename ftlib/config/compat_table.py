"""The compatibility table: what `ftlib.config.compat` answers, asked for every method, adapter and backend at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ftlib.config import Experiment
from ftlib.config.comparable import CHANGES
from ftlib.config.compat import ANY_PARTS, RULES, refusals
from ftlib.config.packs import BASES as PACK_BASES
from ftlib.config.packs import PER_TRIAL, SHARED_TRAIN
from ftlib.config.packs import RULES as PACK_RULES
from ftlib.config.rule import Rule

REWARD = {"function": "length", "arguments": {"target": 64}}
TEACHER = {"type": "distill", "teacher": "a-teacher"}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"type": "sft"},
    "pretrain": {"type": "pretrain"},
    "classify": {"type": "classify"},
    "classify, encoder frozen": {"type": "classify", "freeze": "encoder"},
    "dpo": {"type": "dpo"},
    "kto": {"type": "kto"},
    "orpo": {"type": "orpo"},
    "simpo": {"type": "simpo"},
    "reward": {"type": "reward"},
    "grpo": {"type": "grpo", "rewards": [REWARD]},
    "rloo": {"type": "rloo", "rewards": [REWARD]},
    **{f"distill {kind}": {**TEACHER, "kind": kind} for kind in ("logit", "feature", "relation", "sequence", "self")},
    "distill on_policy": {**TEACHER, "kind": "on_policy"},
    "distill mutual": {**TEACHER, "kind": "mutual"},
    "distill logit, classify": {**TEACHER, "kind": "logit", "task": "classify"},
    "merge": {"type": "merge", "models": {"a": "an-adapter", "b": "another"}},
}
LORA = {"type": "lora"}
KINDS = ("adalora", "ia3", "vera", "oft", "boft", "prefix", "prompt", "p_tuning", "bottleneck", "bitfit", "layers")
ADAPTERS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"adapter": LORA},
    "lora, dora": {"adapter": {**LORA, "use_dora": True}},
    "lora, pissa": {"adapter": {**LORA, "init_lora_weights": "pissa"}},
    **{kind: {"adapter": {"type": kind}} for kind in KINDS},
    "fusion": {"adapter": {"type": "fusion", "adapters": {"a": "an-adapter", "b": "another"}}},
}
QUANTIZED: dict[str, dict[str, Any]] = {
    f"{name} {quantization}": {**section, "model": {"name_or_path": "a-model", "quantization": quantization}}
    for quantization in ("nf4", "int8")
    for name, section in ADAPTERS.items()
}
BACKENDS: dict[str, dict[str, Any]] = {
    "single": {},
    "ddp": {"scale": {"strategy": "ddp", "num_workers": 2}},
    "fsdp": {"scale": {"strategy": "fsdp", "num_workers": 2}},
    **{
        f"deepspeed {stage}": {"scale": {"strategy": "deepspeed", "num_workers": 2, "stage": stage}}
        for stage in (1, 2, 3)
    },
}


@dataclass(frozen=True)
class Table:
    """A table of pairs. A cell is None where the pair works, and otherwise the rule that refuses it."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, list[Rule | None]]


def tables() -> Iterator[Table]:
    """Methods by adapters, by quantized adapters, and by backends (full, LoRA, QLoRA)."""
    yield _table("methods and adapters", METHODS, ADAPTERS)
    yield _table("methods and adapters on a 4-bit base (nf4)", METHODS, _only("nf4"))
    yield _table("methods and adapters on an 8-bit base (int8)", METHODS, _only("int8"))
    for name in ("full", "lora", "lora nf4"):
        section = {**ADAPTERS, **QUANTIZED}[name]
        backends = {backend: {**section, **more} for backend, more in BACKENDS.items()}
        yield _table(f"methods and backends, {name}", METHODS, backends)


def _only(quantization: str) -> dict[str, dict[str, Any]]:
    chosen = {name: more for name, more in QUANTIZED.items() if name.endswith(quantization)}
    return {name.removesuffix(f" {quantization}"): more for name, more in chosen.items()}


def _table(title: str, methods: dict[str, dict[str, Any]], choices: dict[str, dict[str, Any]]) -> Table:
    rows = {
        name: [_refusal({"method": method, **more}) for more in choices.values()] for name, method in methods.items()
    }
    return Table(title, tuple(choices), rows)


def _refusal(tree: dict[str, Any]) -> Rule | None:
    """The first rule that an experiment breaks, where the rest of the experiment is valid."""
    return next(refusals(_whole(tree)), None)


def _whole(tree: dict[str, Any]) -> Experiment:
    whole = {"name": "x", "model": {"name_or_path": "a-model"}, "data": {"train": "data.jsonl"}, **tree}
    return Experiment.model_validate(whole, context=ANY_PARTS)


def markdown() -> str:
    """The text of docs/compatibility.md."""
    return "\n".join(
        [
            "# What goes with what",
            "",
            "Written by `ftlib methods --markdown`; the rules are in `ftlib/config/compat.py`. ✓ is allowed (those "
            "that were",
            "run are in [matrix.md](matrix.md)); a number names the rule below that refuses the pair before anything "
            "starts.",
            "",
            *(line for table in tables() for line in _markdown(table)),
            "## Rules",
            "",
            *(f"{number}. `{rule.key}`: {rule.reason}. Use {rule.instead}." for number, rule in enumerate(RULES, 1)),
            "",
            *_comparisons(),
            *_packs(),
        ]
    )


def _comparisons() -> Iterable[str]:
    """The metrics by which trials of a method are compared, and the keys in which they may not differ
    (`comparable.py`)."""
    yield from ("## What trials are compared by", "")
    yield "The first metric is the default of `sweep.metric`; `sweep.mode` follows from it: ↓ is better low, ↑ better"
    yield "high."
    yield from ("", "| method | metrics | keys that change what some of them mean |", "|---|---|---|")
    for name, section in METHODS.items():
        method = _whole({"method": section}).method
        arrows = (f"`{metric}` {'↓' if better == 'min' else '↑'}" for metric, better in method.metrics.items())
        moved = (f"`{key}`: {', '.join(f'`{metric}`' for metric in metrics)}" for key, metrics in method.moves.items())
        yield f"| {name} | {', '.join(arrows)} | {'; '.join(moved)} |"
    yield from ("", "A sweep over such a key is refused where it is compared by such a metric.", "")
    yield from ("## What trials of a sweep may not differ in", "")
    yield "One leaderboard compares one evaluation. Make a run for each value of these keys:"
    yield ""
    reasons: dict[str, list[str]] = {}
    for key, reason in CHANGES.items():
        reasons.setdefault(reason, []).append(f"`{key}`")
    yield from (f"- {', '.join(keys)}: {reason}." for reason, keys in reasons.items())
    yield from ("", "`data.train` can be swept where `data.eval` names the rows to evaluate on.", "")


def _packs() -> Iterable[str]:
    """Which sweeps train their trials in packs, and what these may differ in (`packs.py`)."""
    yield from ("## What is trained in packs", "")
    yield "`sweep.pack: auto` trains the trials of a sweep in packs ([packs.md](packs.md)). On CPUs, `ftlib train`"
    yield "trains one trial in a pack of one. What keeps trials out of a pack:"
    yield ""
    yield from (f"- {reason}." for _, reason in PACK_RULES)
    yield from (f"- {reason}." for reason in PACK_BASES)
    yield ""
    yield "Trials of a pack may differ in these keys, and in no other:"
    yield ""
    shared = ", ".join(f"`{path}`" for path in SHARED_TRAIN)
    yield f"- `train.*`, but for {shared}"
    yield from (f"- `{path}`" for path in PER_TRIAL)
    yield ""


def _markdown(table: Table) -> Iterable[str]:
    yield from (f"## {table.title[0].upper()}{table.title[1:]}", "")
    yield "| method | " + " | ".join(table.columns) + " |"
    yield "|---" * (len(table.columns) + 1) + "|"
    for name, cells in table.rows.items():
        yield f"| {name} | " + " | ".join(map(cell, cells)) + " |"
    yield ""


def cell(rule: Rule | None) -> str:
    """✓, or the number of the rule that refuses."""
    return "✓" if rule is None else str(RULES.index(rule) + 1)
