"""The answers of a fixed endpoint: no rearrangement of the code may change a character or a logprob of them."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.support.recorded import recorded

from .conftest import KEY, World

TURNS = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "größe"}]


@pytest.mark.parametrize("name", ["support", "support@1", "bare", "full.model"])
def test_completions(client: openai.OpenAI, name: str) -> None:
    asked = {"model": name, "prompt": "the quick brown", "max_tokens": 24}
    greedy = client.completions.create(**asked, temperature=0, logprobs=2).choices[0]
    sampled = client.completions.create(**asked, temperature=1.0, top_p=0.9, seed=7).choices[0]
    found = {"texts": [greedy.text, sampled.text], "logprobs": greedy.logprobs.token_logprobs}
    recorded(f"endpoint_{name.replace('@', '_')}", found)


def test_chats(client: openai.OpenAI) -> None:
    texts = []
    for name in ("support", "full.model"):
        asked = {"model": name, "messages": TURNS, "max_completion_tokens": 16}
        texts.append(client.chat.completions.create(**asked, temperature=0).choices[0].message.content)
        texts.append(client.chat.completions.create(**asked, temperature=0.8, seed=3).choices[0].message.content)
    recorded("endpoint_chats", {"texts": texts})


def test_labels(world: World) -> None:
    asked = {"model": "sorter", "input": ["the quick brown", "日本語の文章"]}
    answer = httpx.post(f"{world.url}/v1/classify", json=asked, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    rows = answer.json()["data"]
    scores = [score for row in rows for score in row["scores"].values()]
    recorded("endpoint_labels", {"labels": [row["label"] for row in rows], "scores": scores})
