"""What the client asks beyond one greedy answer: choices, log-probabilities, penalties, labels, and what is
measured."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from serve.engine.messages import Piece, Reply

from .conftest import KEY, LABELS, World
from .test_life import until

PROMPT = "the quick brown"
TURN: Any = [{"role": "user", "content": PROMPT}]
HEADERS = {"authorization": f"Bearer {KEY}"}


def test_choices_are_numbered_and_counted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="support", messages=TURN, n=3, max_tokens=5, temperature=1.5, seed=1, logprobs=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    assert answer.usage is not None
    assert answer.usage.completion_tokens == sum(
        len(choice.logprobs.content) for choice in answer.choices if choice.logprobs
    )
    again = client.chat.completions.create(
        model="support", messages=TURN, n=3, max_tokens=5, temperature=1.5, seed=1, stream=True
    )
    texts = ["", "", ""]
    for chunk in again:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in answer.choices]


def test_many_prompts_at_once(client: openai.OpenAI) -> None:
    prompts = [PROMPT, "lazy dog", "select name"]
    both = client.completions.create(model="support", prompt=prompts, temperature=0, max_tokens=6)
    alone = [
        client.completions.create(model="support", prompt=prompt, temperature=0, max_tokens=6).choices[0].text
        for prompt in prompts
    ]
    assert [choice.text for choice in both.choices] == alone


def test_logprobs_are_those_of_the_model(world: World, client: openai.OpenAI) -> None:
    answer = client.completions.create(model="support", prompt=PROMPT, temperature=0, max_tokens=5, logprobs=3)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    tokenizer = PreTrainedTokenizerFast.from_pretrained(world.base)
    version = world.served["support"]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(world.base), version.weights).eval()
    prompt = tokenizer(PROMPT).input_ids
    _, ids = world.reference("support", PROMPT, 5)
    with torch.no_grad():
        likely = model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    wanted = [float(likely[len(prompt) - 1 + place, token]) for place, token in enumerate(ids)]
    assert told.token_logprobs == pytest.approx(wanted, abs=1e-4)
    assert all(
        len(top) <= 3 and max(top.values()) == pytest.approx(own, abs=1e-6)
        for top, own in zip(told.top_logprobs, told.token_logprobs, strict=True)
    )
    assert told.tokens == [tokenizer.decode([token]) for token in ids]
    chat = client.chat.completions.create(
        model="support", messages=TURN, temperature=0, max_tokens=4, logprobs=True, top_logprobs=2
    )
    assert chat.choices[0].logprobs is not None
    assert chat.choices[0].logprobs.content is not None
    assert all(len(token.top_logprobs) == 2 for token in chat.choices[0].logprobs.content)


def test_a_bias_forbids_and_a_penalty_varies(client: openai.OpenAI, world: World) -> None:
    _, ids = world.reference("support", PROMPT, 3)
    plain = client.completions.create(model="support", prompt=PROMPT, temperature=0, max_tokens=3)
    other = client.completions.create(
        model="support", prompt=PROMPT, temperature=0, max_tokens=3, logit_bias={str(ids[0]): -100}
    )
    assert other.choices[0].text != plain.choices[0].text
    options: Any = {"model": "support", "prompt": PROMPT, "temperature": 0, "max_tokens": 40, "logprobs": 0}
    repeating = client.completions.create(**options).choices[0].logprobs
    varied = client.completions.create(**options, frequency_penalty=2).choices[0].logprobs
    assert repeating is not None
    assert varied is not None
    assert len(set(varied.tokens or [])) > len(set(repeating.tokens or []))


def test_texts_are_labelled_as_the_model_labels_them(world: World) -> None:
    texts = ["the lazy dog", "größe", "a much longer text of the quick brown fox that jumps"]
    body = {"model": "sorter", "input": texts}
    answer = httpx.post(f"{world.url}/v1/classify", json=body, headers=HEADERS).json()
    version = world.served["sorter"]
    base = AutoModelForSequenceClassification.from_pretrained(world.base, num_labels=3)
    model = PeftModel.from_pretrained(base, version.weights).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(world.base)
    for text, found in zip(texts, answer["data"], strict=True):
        with torch.no_grad():
            chances = model(input_ids=torch.tensor([tokenizer(text).input_ids])).logits[0].softmax(-1).tolist()
        assert found["scores"] == pytest.approx(dict(zip(LABELS, chances, strict=True)), abs=1e-5)
        assert found["label"] == LABELS[chances.index(max(chances))]
    assert answer["system_fingerprint"] == "sorter@1"


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("classify", {"model": "support", "input": "x"}, "use /v1/completions"),
        ("classify", {"model": "sorter", "input": []}, "1 to 64 texts"),
        ("classify", {"model": "sorter", "input": ""}, "not one token"),
        ("classify", {"model": "sorter", "input": "x" * 5000}, "takes at most 4096"),
        ("completions", {"model": "sorter", "prompt": "x"}, "use /v1/classify"),
    ],
)
def test_each_kind_of_model_has_its_path(world: World, path: str, body: dict[str, Any], sentence: str) -> None:
    answer = httpx.post(f"{world.url}/v1/{path}", json=body, headers=HEADERS)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]


def test_prometheus_counts_what_was_answered(world: World, client: openai.OpenAI) -> None:
    def value(name: str, **labels: str) -> float:
        text = httpx.get(f"{world.url}/metrics", headers=HEADERS).text
        found = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        own = [line for line in found if all(f'{key}="{value}"' in line for key, value in labels.items())]
        return sum(float(line.rpartition(" ")[2]) for line in own)

    before = value("ftlib_tokens_total", version="bare@1", kind="completion")
    refused = value("ftlib_requests_total", status="404")
    client.completions.create(model="bare", prompt=PROMPT, max_tokens=7)
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="nobody", prompt=PROMPT)
    assert value("ftlib_tokens_total", version="bare@1", kind="completion") == before + 7
    assert value("ftlib_requests_total", status="404") == refused + 1
    assert value("ftlib_time_to_first_token_seconds_count", version="bare@1") >= 1
    text = httpx.get(f"{world.url}/metrics", headers=HEADERS).text
    assert "nobody" not in text  # what clients invent is no label
    assert re.search(r'ftlib_engine_steps\{engine="Engine-', text)
    assert httpx.get(f"{world.url}/metrics").status_code == 401
    live = httpx.get(f"{world.url}/v1/live", headers=HEADERS).json()
    assert live["versions"]["bare@1"]["tokens"] >= 7


def test_requests_are_in_the_books(world: World, client: openai.OpenAI) -> None:
    answer = client.completions.with_raw_response.create(model="bare", prompt="mail me@example.org", max_tokens=5)
    wanted = answer.headers["x-request-id"]
    lines = {entry["request_id"]: entry for entry in map(json.loads, (world.home / "logs/access.jsonl").open())}
    assert lines[wanted]["version"] == "bare@1"
    assert lines[wanted]["completion_tokens"] == 5
    assert lines[wanted]["key"] == "api-key"
    assert "example" not in json.dumps(lines[wanted])
    samples = {entry["request_id"]: entry for entry in map(json.loads, (world.home / "logs/samples.jsonl").open())}
    assert samples[wanted]["prompt"] == "mail [email]"
    assert samples[wanted]["answer"] == answer.parse().choices[0].text
    assert samples[wanted]["mean_logprob"] < 0
    assert answer.parse().choices[0].logprobs is None  # told to the log alone


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_tokens_join_to_the_answer_and_carry_their_bytes(client: openai.OpenAI, stream: bool, seed: int) -> None:
    """A random model writes characters in halves, and bytes that are none."""

    def told(stop: str | None = None) -> tuple[str, list[Any]]:
        options: Any = {"max_tokens": 40, "temperature": 1.5, "seed": seed, "logprobs": True, "top_logprobs": 5}
        answer: Any = client.chat.completions.create(
            model="support", messages=TURN, stop=stop, stream=stream, **options
        )
        choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
        said = [choice.delta.content or "" if stream else choice.message.content for choice in choices]
        return "".join(said), [token for choice in choices if choice.logprobs for token in choice.logprobs.content]

    text, tokens = told()
    assert len(tokens) == 40
    assert "".join(token.token for token in tokens) == text
    assert b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace") == text
    likely = [other for token in tokens for other in token.top_logprobs]
    halves = [token for token in likely if token.token.startswith("bytes:")]
    assert halves
    assert all(half.token == "bytes:" + "".join(f"\\x{byte:02x}" for byte in half.bytes) for half in halves)
    assert all(bytes(token.bytes).decode() == token.token for token in likely if token not in halves)
    cut, fewer = told(stop=text[7:10])
    assert cut == text[: text.index(text[7:10])]
    assert "".join(token.token for token in fewer) == cut
    completion: Any = client.completions.create(
        model="support", prompt=PROMPT, max_tokens=40, temperature=1.5, seed=seed, logprobs=5
    )
    (choice,) = completion.choices
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[-1] == len(choice.text) - len(choice.logprobs.tokens[-1])


def test_who_hangs_up_is_no_error_of_ours(world: World, client: openai.OpenAI) -> None:
    body = {"model": "support", "prompt": "x", "max_tokens": 3900, "temperature": 0}

    def named(id: str, seconds: float) -> httpx.Client:
        return httpx.Client(base_url=world.url, headers={**HEADERS, "x-request-id": id}, timeout=seconds)

    with named("gone-whole", 1) as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json=body)
    streamed = {**body, "stream": True}
    with named("gone-stream", 60) as http, http.stream("POST", "/v1/completions", json=streamed) as answer:
        next(answer.iter_lines())
    address = urlsplit(world.url)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nx-request-id: gone-body\r\n"
    with socket.create_connection((address.hostname, address.port)) as peer:
        peer.sendall(head.encode() + b"content-length: 100\r\n\r\n{")
        time.sleep(1)  # it is waited for

    def statuses() -> dict[str, int]:
        lines = [json.loads(line) for line in (world.home / "logs/access.jsonl").open()]
        return {entry["request_id"]: entry["status"] for entry in lines if entry["request_id"].startswith("gone-")}

    until(lambda: len(statuses()) == 3)
    assert set(statuses().values()) == {499}


def test_a_tool_that_the_model_calls_comes_back_as_text() -> None:
    said = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    whole = Reply(chat=True, model="support", version="support@1").whole([Piece(said, finish_reason="stop")], {})
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": said}
