"""Every method with every adapter that the table allows: five steps, saved, loaded again without ftlib, the same.

The covering subset runs in `make test`; all of it, written down in docs/matrix.md, in `make test-all`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftlib.config import Experiment
from ftlib.config.compat import RULES
from ftlib.errors import ConfigError
from ftlib.models.adapters.merge import merge
from ftlib.run.directory import Run
from ftlib.training import trial as trial_module
from tests.support import matrix_page
from tests.training.test_trial import setting, train

from .conftest import COLOURS, rows, write_jsonl
from .methods.conftest import labelled, pairs

ONLINE = {
    "rewards": [f"{Path(__file__).parent / 'support' / 'low_tokens.py'}:low"],
    "num_generations": 4,
    "max_completion_length": 8,
}
METHODS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "sft": ({"type": "sft"}, rows(80)),
    "pretrain": ({"type": "pretrain"}, [{"text": f"{row['prompt']} {row['completion']}"} for row in rows(80)]),
    "classify": ({"type": "classify"}, labelled(80)),
    "classify frozen": ({"type": "classify", "freeze": "encoder"}, labelled(80)),
    "dpo": ({"type": "dpo"}, pairs(80)),
    "kto": ({"type": "kto"}, pairs(80)),
    "orpo": ({"type": "orpo"}, pairs(80)),
    "simpo": ({"type": "simpo"}, pairs(80)),
    "reward": ({"type": "reward"}, pairs(80)),
    "grpo": ({"type": "grpo", **ONLINE}, rows(80)),
    "rloo": ({"type": "rloo", **ONLINE}, rows(80)),
    "distill logit": ({"type": "distill", "kind": "logit"}, rows(80)),
    "distill feature": ({"type": "distill", "kind": "feature"}, rows(80)),
    "distill relation": ({"type": "distill", "kind": "relation"}, rows(80)),
    "distill on_policy": ({"type": "distill", "kind": "on_policy", "max_completion_length": 8}, rows(80)),
    "distill classify": ({"type": "distill", "kind": "feature", "task": "classify"}, labelled(80)),
}
LORA = {"type": "lora", "r": 4, "lora_alpha": 8}
ADAPTERS: dict[str, tuple[dict[str, Any] | None, str | None]] = {
    "full": (None, None),
    "lora": (LORA, None),
    "qlora nf4": (LORA, "nf4"),
    "qlora int8": (LORA, "int8"),
    "dora": ({**LORA, "use_dora": True}, None),
    "pissa": ({**LORA, "init_lora_weights": "pissa"}, None),
    "adalora": ({"type": "adalora", "init_r": 4, "target_r": 2, "tinit": 1, "tfinal": 1}, None),
    "ia3": ({"type": "ia3"}, None),
    "vera": ({"type": "vera", "r": 8}, None),
    "oft": ({"type": "oft", "oft_block_size": 8}, None),
    "boft": ({"type": "boft", "boft_block_size": 4}, None),
    "prefix": ({"type": "prefix", "num_virtual_tokens": 4}, None),
    "prompt": ({"type": "prompt", "num_virtual_tokens": 4}, None),
    "p_tuning": ({"type": "p_tuning", "num_virtual_tokens": 4}, None),
    "bottleneck": ({"type": "bottleneck", "bottleneck_size": 8}, None),
    "bitfit": ({"type": "bitfit"}, None),
    "layers": ({"type": "layers", "num_layers": 1}, None),
    "qlora nf4 dora": ({**LORA, "use_dora": True}, "nf4"),
}
COVERING = [("classify", "lora"), ("dpo", "qlora nf4"), ("reward", "lora"), ("grpo", "lora"), ("kto", "full")]
BY_METHOD_NOT_TABLE = ("bitfit",)  # the tiny Llama has no biases


@dataclass
class Outcome:
    """What became of one pair: refused with a reason, or trained and reloaded with a difference of the logits."""

    refused: str | None = None
    folder: Path | None = None
    trained: torch.Tensor | None = None
    failure: str | None = None
    difference: float | None = None
    merged: float | None = None  # where the adapter can be computed into its base

    @property
    def cell(self) -> str:
        if self.failure:
            return f"FAILED: {self.failure}"
        if self.refused:
            return "–"
        return " / ".join(
            "0" if not value else f"{value:.0e}" for value in (self.difference, self.merged) if value is not None
        )


def run_all(
    pairs_to_run: list[tuple[str, str]], tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[str, str], Outcome]:
    """Trains every pair, then reloads all of them in one new process."""
    built: list[Any] = []
    build = trial_module.build
    monkeypatch.setattr(
        trial_module, "build", lambda *args, **kwargs: built.append(build(*args, **kwargs)) or built[-1]
    )
    outcomes = {(m, a): _train(m, a, tree, tmp_path / m / a, built) for m, a in pairs_to_run}
    trained = [outcome for outcome in outcomes.values() if outcome.folder is not None]
    command = [sys.executable, "-m", "tests.support.reload_adapters", *(str(outcome.folder) for outcome in trained)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for outcome in trained:
        assert outcome.folder is not None
        found = load_file(outcome.folder / "reloaded.safetensors")
        outcome.difference = float((found["reloaded"] - outcome.trained).abs().max())
        outcome.merged = float((found["merged"] - outcome.trained).abs().max()) if "merged" in found else None
    return outcomes


def configured(method: str, adapter: str, tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The experiment of one pair, its data written into `folder`."""
    section, quantization = ADAPTERS[adapter]
    experiment = json.loads(json.dumps(tree))
    method_section, data = METHODS[method]
    experiment.update(method=dict(method_section), adapter=section)
    if method.startswith("distill"):
        experiment["method"]["teacher"] = str(teacher(experiment["model"]["name_or_path"], "classify" in method))
    experiment["model"]["quantization"] = quantization
    experiment["train"].update(max_steps=5, learning_rate=5e-3)
    experiment["data"]["train"] = str(write_jsonl(folder / "data.jsonl", data))
    return experiment


@cache
def teacher(base: str, classify: bool) -> Path:
    """The base with other weights, and for classifiers with a head that knows the colours."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(base).with_name("classifier" if classify else "teacher")
    torch.manual_seed(1)
    if classify:
        names = dict(enumerate(sorted(COLOURS)))
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(names), id2label=names)
    else:
        model = AutoModelForCausalLM.from_pretrained(base)
    for part in model.parameters():
        part.data += 0.05 * torch.randn_like(part)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def _train(method: str, adapter: str, tree: dict[str, Any], folder: Path, built: list[Any]) -> Outcome:
    experiment = configured(method, adapter, tree, folder)
    try:
        Experiment.parse(experiment)
    except ConfigError as refused:
        return Outcome(refused=str(refused))
    try:
        done = setting(experiment, folder, metric="eval_loss")
        train(done)
    except Exception as error:
        return Outcome(failure=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    outcome = Outcome(folder=Run(Path(done.run)).trial("000").path)
    assert outcome.folder is not None
    parsed = done.experiment()
    if parsed.adapter is not None and parsed.adapter.mergeable:
        merge(outcome.folder / "adapter", parsed.model, outcome.folder / "merged")
    ids = torch.arange(5, 25).reshape(1, 20)
    save_file({"ids": ids}, outcome.folder / "probe.safetensors")
    model = built[-1][0].model.eval()
    with torch.no_grad():
        outcome.trained = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    return outcome


def check(outcomes: dict[tuple[str, str], Outcome]) -> None:
    for pair, outcome in outcomes.items():
        assert outcome.failure is None, (pair, outcome.failure)
        if outcome.refused:
            assert any(rule.reason in outcome.refused and rule.instead in outcome.refused for rule in RULES), pair
        else:
            assert outcome.difference is not None
            assert outcome.difference <= 1e-5, (pair, outcome.difference)
            # LLM.int8 rounds activations too, so a merged matrix, which is plain, cannot compute the same.
            assert outcome.merged is None or outcome.merged <= (5e-2 if "int8" in pair[1] else 1e-4), pair


def test_a_covering_subset(tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(run_all(COVERING, tree, tmp_path, monkeypatch))


@pytest.mark.matrix
def test_every_pair(tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [name for name in ADAPTERS if name not in BY_METHOD_NOT_TABLE]
    outcomes = run_all([(m, a) for m in METHODS for a in adapters], tree, tmp_path, monkeypatch)
    write_table(outcomes, adapters)
    check(outcomes)


def write_table(outcomes: dict[tuple[str, str], Outcome], adapters: list[str]) -> None:
    """docs/matrix.md: the largest difference of the logits after reloading, or – where the table refuses the pair."""
    lines = [
        "# Methods and adapters, run",
        "",
        "Five steps on a tiny Llama, saved, loaded again in a new process by PEFT and transformers alone: the largest",
        "difference of the logits, and after the stroke that of the adapter merged into its base; – where the pair is",
        "refused (`ftlib methods` says why). Written by `make test-all`.",
        "",
        "| method | " + " | ".join(adapters) + " |",
        "|---" * (len(adapters) + 1) + "|",
        *(f"| {m} | " + " | ".join(outcomes[m, a].cell for a in adapters) + " |" for m in METHODS),
        "",
    ]
    matrix_page.first(lines)


BACKENDS = {
    "ddp": {"strategy": "ddp", "num_workers": 2},
    "fsdp": {"strategy": "fsdp", "num_workers": 2},
    "zero2": {"strategy": "deepspeed", "stage": 2, "num_workers": 2},
    "zero3": {"strategy": "deepspeed", "stage": 3, "num_workers": 2},
}


@pytest.mark.matrix
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("adapter", ["full", "lora", "qlora nf4"])
@pytest.mark.parametrize("method", METHODS)
def test_every_backend(method: str, adapter: str, backend: str, tree: dict[str, Any], tmp_path: Path) -> None:
    """What the table allows trains two steps on two workers, with its proof that it is in use; the rest is refused."""
    from tests.support import ranks

    experiment = configured(method, adapter, tree, tmp_path)
    experiment["train"].update(max_steps=2)
    experiment["scale"] = BACKENDS[backend]
    parsed, refused = _parsed(experiment)
    if parsed is None:
        assert any(rule.sentence in refused for rule in RULES)
        return
    notes = ranks.train(ranks.setting(parsed, tmp_path))
    assert [note["error"] for note in notes if note["error"]] == []


def _parsed(tree: dict[str, Any]) -> tuple[Experiment | None, str]:
    try:
        return Experiment.parse(tree), ""
    except ConfigError as refused:
        return None, str(refused)
