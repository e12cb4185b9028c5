"""Every adapter type, and every method, for 30 steps on a real model: the metric of the base, and what it became.

SmolLM2-135M-Instruct, and all-MiniLM-L6-v2 for classes. Each entry writes its own line into the second table of
docs/matrix.md, so that one entry can be run alone:
`pytest -m matrix tests/test_real_matrix.py -k "sft-prefix"`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import ModelSection
from ftlib.models.adapters.merge import merge
from ftlib.run.directory import Run
from tests.support import matrix_page
from tests.training.test_trial import setting, train

from .conftest import SMOLLM, write_jsonl

ROOT = Path(__file__).parents[1]
MODELS = ROOT / ".cache" / "models"
MINILM = MODELS / "minilm-l6-v2"
pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(
        not (SMOLLM.exists() and MINILM.exists()), reason="'make install' could not fetch the models' wheels from PyPI"
    ),
]

PROBLEMS = {
    "billing": ("You charged me twice", "The invoice is wrong", "I never paid this", "Where is my refund"),
    "delivery": ("My parcel is lost", "The courier never came", "It has not arrived", "Tracking stands still"),
    "account": ("I cannot sign in", "My password is refused", "Change my address", "Delete my profile"),
    "return": ("It does not fit", "The cup came broken", "I want to send it back", "Wrong colour, take it"),
}
MOODS = ("{}!", "{}, please.", "Hello, {}", "{}??")
TICKETS = [(mood.format(told), kind) for mood in MOODS for kind, all_told in PROBLEMS.items() for told in all_told]


def chat(ticket: str) -> list[dict[str, str]]:
    """A system message of one word, because this model's template writes a long one where there is none."""
    return [{"role": "system", "content": "JSON"}, {"role": "user", "content": ticket}]


def said(kind: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": f'{{"kind": "{kind}"}}'}]


ANSWERS = [{"messages": chat(ticket) + said(kind)} for ticket, kind in TICKETS]
TEXTS = [{"text": f"{ticket} That is about {kind}."} for ticket, kind in TICKETS]
PROMPTS = [{"prompt": chat(ticket), "completion": said(kind)} for ticket, kind in TICKETS]
PAIRS = [
    {"prompt": chat(ticket), "chosen": said(kind), "rejected": [{"role": "assistant", "content": "I do not know."}]}
    for ticket, kind in TICKETS
]
LABELLED = [{"text": ticket, "label": kind} for ticket, kind in TICKETS]

LORA = {"type": "lora", "r": 8, "lora_alpha": 16}
ONLINE = {
    "rewards": [f"{Path(__file__).parent / 'support' / 'plain_letters.py'}:lower"],
    "num_generations": 4,
    "max_completion_length": 8,
}


@dataclass(frozen=True)
class Entry:
    """`why` says what the base's metric is where it is no measure of the base."""

    method: dict[str, Any]
    adapter: dict[str, Any] | None
    rate: float
    rows: list[Any] = field(default_factory=lambda: ANSWERS)
    metric: str = "eval_loss"
    quantization: str | None = None
    classifier: bool = False
    why: str = ""


SFT = {"type": "sft"}
CLASSIFY = {"type": "classify"}
DISTILL = {"type": "distill", "alpha": 0.5}
PROMPT = {"type": "prompt", "num_virtual_tokens": 8}
LN2 = "the base is its own reference: ln 2"
HEAD = "the base has a random head"
ENTRIES: dict[str, Entry] = {
    "sft, lora": Entry(SFT, LORA, 1e-3),
    "sft, prefix": Entry(SFT, {"type": "prefix", "num_virtual_tokens": 8}, 2e-2),
    "sft, full": Entry(SFT, None, 5e-5),
    "sft, qlora nf4": Entry(SFT, LORA, 1e-3, quantization="nf4"),
    "sft, qlora int8": Entry(SFT, LORA, 1e-3, quantization="int8"),
    "sft, dora": Entry(SFT, {**LORA, "use_dora": True}, 1e-3),
    "sft, pissa": Entry(SFT, {**LORA, "init_lora_weights": "pissa_niter_4"}, 5e-4),
    "sft, adalora": Entry(
        SFT, {"type": "adalora", "init_r": 8, "target_r": 4, "lora_alpha": 16, "tinit": 5, "tfinal": 10}, 5e-3
    ),
    "sft, ia3": Entry(SFT, {"type": "ia3"}, 1e-2),
    "sft, vera": Entry(SFT, {"type": "vera", "r": 64}, 1e-2),
    "sft, oft": Entry(SFT, {"type": "oft", "oft_block_size": 32}, 1e-3),
    "sft, boft": Entry(SFT, {"type": "boft", "boft_block_size": 4}, 1e-2),
    "sft, prompt": Entry(SFT, {**PROMPT, "prompt_tuning_init": "SAMPLE_VOCAB"}, 3e-2),
    "sft, p_tuning": Entry(SFT, {"type": "p_tuning", "num_virtual_tokens": 8}, 1e-3),
    "sft, bottleneck": Entry(SFT, {"type": "bottleneck", "bottleneck_size": 16}, 1e-3),
    "sft, layers": Entry(SFT, {"type": "layers", "num_layers": 4}, 2e-4),
    "classify, bitfit": Entry(CLASSIFY, {"type": "bitfit"}, 1e-2, LABELLED, classifier=True, why=HEAD),
    "pretrain, lora": Entry({"type": "pretrain"}, LORA, 1e-3, TEXTS),
    "classify, lora": Entry(CLASSIFY, LORA, 5e-3, LABELLED, classifier=True, why=HEAD),
    "classify frozen": Entry(
        {"type": "classify", "freeze": "encoder"}, None, 1e-2, LABELLED, classifier=True, why=HEAD
    ),
    "dpo, lora": Entry({"type": "dpo"}, LORA, 2e-4, PAIRS, why=LN2),
    "kto, lora": Entry({"type": "kto"}, LORA, 2e-4, PAIRS, why="the base is its own reference: 0.5"),
    "orpo, lora": Entry({"type": "orpo"}, LORA, 5e-4, PAIRS),
    "simpo, lora": Entry({"type": "simpo"}, LORA, 2e-4, PAIRS),
    "reward, lora": Entry({"type": "reward"}, LORA, 1e-3, PAIRS, why=HEAD),
    "grpo, lora": Entry({"type": "grpo", **ONLINE}, LORA, 1e-3, PROMPTS, "eval_reward"),
    "rloo, lora": Entry({"type": "rloo", **ONLINE}, LORA, 1e-3, PROMPTS, "eval_reward"),
    "distill logit, lora": Entry({**DISTILL, "kind": "logit"}, LORA, 1e-3),
    "distill feature, lora": Entry({**DISTILL, "kind": "feature"}, LORA, 1e-3),
    "distill relation, lora": Entry({**DISTILL, "kind": "relation"}, LORA, 1e-3),
    "distill self, lora": Entry({**DISTILL, "kind": "self"}, LORA, 1e-3),
    "distill on_policy, lora": Entry({**DISTILL, "kind": "on_policy", "max_completion_length": 8}, LORA, 1e-3, PROMPTS),
}


@pytest.fixture(scope="module")
def teacher(smollm: ModelSection, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SmolLM2 after the 30 steps of `sft, lora`, merged: it knows what the student is to learn."""
    folder = tmp_path_factory.mktemp("teacher")
    done = setting(tree(ENTRIES["sft, lora"], smollm, folder), folder)
    train(done)
    merged = folder / "merged"
    merge(Run(Path(done.run)).trial("000").path / "adapter", done.experiment().model, merged)
    return str(merged)


def tree(entry: Entry, smollm: ModelSection, folder: Path) -> dict[str, Any]:
    base = str(MINILM) if entry.classifier else smollm.name_or_path
    return {
        "name": "tickets",
        "model": {"name_or_path": base, "quantization": entry.quantization},
        "data": {
            "train": str(write_jsonl(folder / "rows.jsonl", entry.rows[:-16])),
            "eval": str(write_jsonl(folder / "held_out.jsonl", entry.rows[-16::2])),
            "max_length": 64,
        },
        "method": dict(entry.method),
        "adapter": entry.adapter,
        "train": {
            "learning_rate": entry.rate,
            "max_steps": 30,
            "per_device_train_batch_size": 4 if "rewards" in entry.method else 2,
            "per_device_eval_batch_size": 8,
            "warmup_steps": 0.1,
            "lr_scheduler_type": "linear",
            "logging_steps": 1,
            "eval_strategy": "end",
        },
        "track": {"wandb": None, "tensorboard": False},
    }


@pytest.mark.parametrize("name", ENTRIES, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def test_thirty_steps(name: str, smollm: ModelSection, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It ends below its base (a reward: above it)."""
    entry = ENTRIES[name]
    section = tree(entry, smollm, tmp_path)
    if entry.method["type"] == "distill":
        section["method"]["teacher"] = request.getfixturevalue("teacher")
    mode = "max" if entry.metric == "eval_reward" else "min"
    done = setting(section, tmp_path, metric=entry.metric, mode=mode, baseline=True)
    after = train(done)[-1][entry.metric]
    base = Run(Path(done.run)).trial("base")
    assert base.metrics(), base.status
    before = base.metrics()[-1][entry.metric]
    matrix_page.record(name, entry.metric, entry.rate, before, after, entry.why, list(ENTRIES))
    assert (after > before) if mode == "max" else (after < before)
