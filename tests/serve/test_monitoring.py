"""From the endpoint's own log to the drift report."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from ftlib.registry import registry
from ftlib.registry.monitor import monitor
from ftlib.registry.profile import write_profile

from .conftest import TEMPLATE, World, adapter_trial, tiny_tokenizer
from .test_life import until

WORDS = "the quick brown fox jumps over a lazy dog select name from users where and order by"


def test_a_chat_like_training_shows_no_drift(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompts of the log are what the model read, as the profile's are, so the template is no difference."""
    monkeypatch.setenv("FTLIB_HOME", str(world.home))
    tokenizer, draw = tiny_tokenizer(TEMPLATE), random.Random(0)

    def question() -> str:
        return " ".join(draw.choices(WORDS.split(), k=draw.randint(4, 9)))

    def row() -> dict[str, list[int]]:
        prompt = tokenizer(world.rendered(("user", question())))["input_ids"]
        answer = tokenizer("the lazy dog")["input_ids"]
        return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}

    data: Any = SimpleNamespace(
        train=Dataset.from_list([row() for _ in range(600)]), report=SimpleNamespace(rows="answers"), path=Path()
    )

    def keep(staged: registry.Version) -> dict[str, Any]:
        write_profile(staged.path, data, tokenizer)
        return {}

    trial = adapter_trial(world.run, "watched", world.base, seed=41)
    version = registry.register(world.run, trial, "support", examine=keep)
    client = world.client()
    try:
        until(lambda: client.models.retrieve("support").root == version.id)  # type: ignore[attr-defined]

        def ask(text: str) -> None:
            client.chat.completions.create(
                model="support", messages=[{"role": "user", "content": text}], max_tokens=3, temperature=0
            )

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, [question() for _ in range(60)]))
        report = monitor(version.id)
    finally:
        registry.rollback("support")
    assert report.samples == 60
    about_prompts = {finding.what: finding for finding in report.findings if finding.what.startswith("prompt")}
    assert len(about_prompts) == 3
    assert [what for what, finding in about_prompts.items() if finding.drifted] == []
