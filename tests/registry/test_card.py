"""The model card: the Hub reads it, its code runs, and nothing of the data or of a stranger's manifest is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftlib.evaluation.verdict import verdict
from ftlib.registry.card import card, metadata

NUMBERS = {"base": (0.075, 0.05, 0.12), "winner": (0.835, 0.777, 0.88)}
TASK = {
    "role": "target",
    "rows": 200,
    "units": 200,
    "hash": "0123456789abcdef",
    "metrics": {"exact_match": "max"},
    "shares": ["exact_match"],
    "contenders": {
        name: {"numbers": {"exact_match": dict(zip(("value", "low", "high"), values, strict=True))}, "what": name}
        for name, values in NUMBERS.items()
    },
    "comparisons": [
        {"metric": "exact_match", "ours": "winner", "theirs": "base", "difference": 0.76, "low": 0.7, "high": 0.82,
         "p": 1e-9, "units": 200, "test": "mcnemar"}
    ],
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "kind": "adapter",
    "base": {"name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "abc", "fingerprint": None},
    "experiment": {
        "name": "x",
        "model": {"name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "data": {"train": "/home/anna/secret/tickets.jsonl"},
        "method": {"type": "sft"},
        "adapter": {"type": "lora", "r": 32},
        "train": {"learning_rate": 1e-3, "max_steps": 70},
    },
    "chat_template": "{{ messages }}",
    "data_hash": "812378a6",
    "run": "/home/anna/runs/x-1",
    "trial": "004",
    "parent": "tickets@2",
    "step": 70,
    "gate": {"passed": True},
}
DATA = {"rows": "answers", "format": "chat", "train_rows": 1800}


def evaluated(**tasks: Any) -> dict[str, Any]:
    evaluation = {"tasks": tasks, "failed": []}
    return {**MANIFEST, "evaluation": {**evaluation, "verdict": verdict(evaluation)}}


def test_the_hub_reads_the_card() -> None:
    read = ModelCard(card("tickets", evaluated(tickets=TASK), {}, DATA)).data
    assert (read.base_model, read.library_name) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "peft")
    assert "ftlib" in read.tags
    (result,) = read.eval_results
    assert (result.dataset_name, result.dataset_revision, result.metric_type) == (
        "tickets",
        TASK["hash"],
        "exact_match",
    )
    assert result.metric_value == 0.835


def test_a_reader_finds_results_settings_data_and_limits() -> None:
    text = card("tickets", evaluated(tickets=TASK), {"train.learning_rate": 1e-3}, DATA)
    assert "**tickets: 83.5 % (77.7 to 88.0), base 7.5 %, p < 0.001 on 200 rows**" in text
    assert (
        "| tickets | exact_match | base | 7.5 % (5.0 to 12.0) | +76.0 (+70.0 to +82.0) | p < 0.001 | 200 rows |" in text
    )
    assert "| `train.learning_rate` | `0.001` | swept |" in text
    assert "| `adapter.r` | `32` | set |" in text
    assert "Hash of the prepared rows: `812378a6`" in text
    assert "Rows trained on: 1,800" in text
    assert "no task has the role regression" in text
    assert "Parent: `tickets@2`" in text
    assert "/home/anna" not in text


def test_what_was_forgotten_is_a_limit() -> None:
    lost = {**TASK, "role": "regression", "comparisons": [{**TASK["comparisons"][0], "difference": -0.3}]}
    assert "Forgetting: on general it has 83.5 % (exact_match) and the base 7.5 % (p < 0.001): a loss beyond" in card(
        "tickets", evaluated(general=lost), {}, DATA
    )


def test_a_folder_of_this_machine_is_no_base_on_the_hub() -> None:
    base = {"name_or_path": "/home/anna/models/small", "revision": None, "fingerprint": "2cf77b"}
    manifest = {**MANIFEST, "base": base}
    assert metadata("tickets", manifest).base_model is None
    text = card("tickets", manifest, {}, {})
    assert "Fingerprint of the base (SHA-256): `2cf77b`" in text
    assert "/home/anna" not in text


@pytest.mark.parametrize("hostile", ["<script>x</script>", "[x](http://x)", "a\n## b", "`|`"])
def test_names_of_strangers_are_text(hostile: str) -> None:
    task = {**TASK, "contenders": {**TASK["contenders"], hostile: TASK["contenders"]["base"]}}
    task["comparisons"] = [*TASK["comparisons"], {**TASK["comparisons"][0], "theirs": hostile}]
    manifest = {**evaluated(tickets=task), "trial": hostile, "parent": hostile, "versions": {hostile: hostile}}
    text = card("tickets", manifest, {hostile: hostile}, {"format": hostile})
    outside = re.sub(r"`[^`\n]*`", "", text.partition("\n---\n")[2])
    assert "<script>" not in outside
    assert not re.search(r"(?<!\\)\[x", outside)
    assert "\n## b" not in text
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| tickets")} == {8}


def test_a_long_text_in_the_settings_is_not_copied() -> None:
    assert "(5002 characters)" in card("tickets", MANIFEST, {"train.x": ["y" * 4998]}, {})
    assert "yyyy" not in card("tickets", MANIFEST, {"train.x": "y" * 100}, {})


def test_the_card_of_a_manifest_that_says_little() -> None:
    assert "`tickets` is a whole model, trained with ftlib." in card("tickets", {"kind": "model"}, {}, {})


def test_its_code_runs(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", r=2))
    model.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    (tmp_path / base.name).symlink_to(base)
    monkeypatch.chdir(tmp_path)
    told = {"name_or_path": str(base), "revision": None, "fingerprint": "x"}
    blocks = re.findall(r"```python\n(.*?)```", card("tickets", {**MANIFEST, "base": told}, {}, {}), re.DOTALL)
    assert len(blocks) == 2
    heard = []
    for block in blocks:
        exec(compile(block.replace("64", "8, do_sample=False"), "card", "exec"), {})
        heard.append(capsys.readouterr().out)
    assert heard[0] == heard[1]
