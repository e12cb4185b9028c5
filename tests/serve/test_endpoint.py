"""The real endpoint over HTTP, through the client that people use."""

from __future__ import annotations

import time

import httpx
import openai
import pytest

PROMPT = "the quick brown"
TURN = [{"role": "user", "content": PROMPT}]


def complete(client: openai.OpenAI, model: str, prompt=PROMPT, **options):
    options = {"max_tokens": 24, "temperature": 0, **options}
    return client.completions.create(model=model, prompt=prompt, **options)


@pytest.mark.parametrize("name", ["support", "support@1", "bare", "full.model"])
def test_greedy_answers_are_those_of_peft(world, client, name):
    text, ids = world.reference(name, PROMPT, 24)
    answer = complete(client, name)
    assert answer.choices[0].text == text
    assert answer.usage.completion_tokens == len(ids)
    assert answer.choices[0].finish_reason == "length"


def test_adapters_do_not_leak_into_each_other(world, client):
    names = ["support", "support@1", "bare"]
    texts = {name: complete(client, name).choices[0].text for name in names}
    assert len(set(texts.values())) == 3
    assert {name: complete(client, name).choices[0].text for name in reversed(names)} == texts


def test_concurrent_requests_keep_to_their_adapters(world, client):
    from concurrent.futures import ThreadPoolExecutor

    names = ["support", "support@1", "bare", "full.model"] * 3
    with ThreadPoolExecutor(len(names)) as pool:
        texts = list(pool.map(lambda name: complete(client, name).choices[0].text, names))
    assert texts == [world.reference(name, PROMPT, 24)[0] for name in names[:4]] * 3


@pytest.mark.parametrize("name", ["support", "full.model"])
def test_chat_renders_the_template_of_the_version(world, client, name):
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "größe"}]},
    ]
    text, ids = world.reference(name, world.rendered(("system", "be brief"), ("user", "größe")), 16, special=False)
    answer = client.chat.completions.create(model=name, messages=turns, temperature=0, max_completion_tokens=16)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens == len(ids)
    assert answer.system_fingerprint == world.served[name].id


def test_a_stream_is_the_answer_in_pieces(client):
    whole = client.chat.completions.create(model="support", messages=TURN, temperature=0, max_tokens=40)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(
        client.chat.completions.create(model="support", messages=TURN, temperature=0, max_tokens=40, **options)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert len([delta for delta in deltas if delta.content]) > 5
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage
    assert not chunks[-1].choices


def test_a_stream_of_completions_ends_with_done(world, client):
    whole = complete(client, "support").choices[0].text
    assert "".join(chunk.choices[0].text for chunk in complete(client, "support", stream=True)) == whole
    body = {"model": "support", "prompt": PROMPT, "stream": True, "max_tokens": 3}
    raw = httpx.post(f"{world.url}/v1/completions", json=body, headers={"authorization": "Bearer tiny-key"})
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in raw.text


def test_models_are_the_names_and_nothing_else(world, client):
    models = client.models.list().data
    bases = ("support@1", "support", "bare")  # the engines of the others do not hold a base alone
    assert {model.id: model.root for model in models} == {
        **{name: version.id for name, version in world.served.items()},
        **{f"{name}@base": f"{world.served[name].id}@base" for name in bases},
    }
    assert abs(client.models.retrieve("support").created - time.time()) < 600


def test_an_answer_is_cut_at_its_stop_string(client):
    text = complete(client, "support", max_tokens=40).choices[0].text
    for stop in (text[7:8], text[5:14], text[-3:]):  # one character; across tokens; the last ones
        answer = complete(client, "support", max_tokens=40, stop=["\0never", stop])
        assert answer.choices[0].text == text[: text.index(stop)]
        assert answer.choices[0].finish_reason == "stop"
        streamed = complete(client, "support", max_tokens=40, stop=stop, stream=True)
        assert "".join(chunk.choices[0].text for chunk in streamed) == text[: text.index(stop)]


def test_a_stop_string_saves_the_tokens_after_it(client):
    text = complete(client, "support", max_tokens=40).choices[0].text
    assert complete(client, "support", max_tokens=40, stop=text[3:6]).usage.completion_tokens < 20


def test_a_seed_repeats_a_sample(client):
    draw = lambda **options: complete(client, "support", temperature=1.5, **options).choices[0].text  # noqa: E731
    assert draw(seed=7) == draw(seed=7)
    assert draw(seed=7) != draw(seed=8)
    assert draw() != draw()


def test_the_default_temperature_samples_and_a_tiny_top_p_does_not(client):
    greedy = complete(client, "support").choices[0].text
    assert any(complete(client, "support", temperature=openai.NOT_GIVEN).choices[0].text != greedy for _ in range(3))
    assert complete(client, "support", temperature=1, top_p=1e-6).choices[0].text == greedy


def test_a_prompt_of_token_ids(client, world):
    from transformers import PreTrainedTokenizerFast

    ids = PreTrainedTokenizerFast.from_pretrained(world.base)(PROMPT).input_ids
    assert complete(client, "support", ids).choices[0].text == complete(client, "support").choices[0].text
    assert complete(client, "support", ids).usage.prompt_tokens == len(ids)
    with pytest.raises(openai.BadRequestError, match="token ids go from 0"):
        complete(client, "support", [0, 99999])


def test_a_completion_is_16_tokens_unless_asked_otherwise(client):
    assert complete(client, "support", max_tokens=openai.NOT_GIVEN).usage.completion_tokens == 16


def test_a_prompt_too_long_says_by_how_much(client):
    with pytest.raises(openai.BadRequestError, match=r"takes at most 4095") as caught:
        complete(client, "support", "x" * 5000, stream=True)
    assert caught.value.code == "context_length_exceeded"


def test_an_answer_ends_where_the_context_does(client):
    answer = complete(client, "support", "x" * 4090, max_tokens=100)
    assert answer.usage.total_tokens == 4096
    assert answer.choices[0].finish_reason == "length"


def test_hanging_up_frees_the_engine(client, world):
    alone = clock(lambda: complete(client, "support", max_tokens=2))
    for _ in range(3):  # each would hold the engine for seconds
        stream = complete(client, "support", max_tokens=3900, stream=True)
        assert next(iter(stream)).choices[0].finish_reason is None
        stream.close()
    assert clock(lambda: complete(client, "support", max_tokens=2)) < 5 * alone + 5


def test_hanging_up_on_a_whole_answer_frees_the_engine_too(client, world):
    with pytest.raises(openai.APITimeoutError):
        complete(client.with_options(timeout=0.4), "support", max_tokens=3900)
    assert clock(lambda: complete(client, "support", max_tokens=2)) < 5


def clock(action) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def test_an_unknown_model_names_the_nearest(client):
    with pytest.raises(
        openai.NotFoundError, match=r"Did you mean 'support'.*support@1, support, bare, full.model, sorter"
    ) as caught:
        complete(client, "suport")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("support@9")


@pytest.mark.parametrize("key", ["wrong", "tiny-keyy"])
def test_a_wrong_key_is_refused(world, key):
    with pytest.raises(openai.AuthenticationError) as caught:
        world.client(key).models.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("header", [b"Bearer", b"Basic tiny-key", "Bearer ключ".encode(), b"tiny-key"])
def test_a_header_that_holds_no_key(world, header):
    assert httpx.get(f"{world.url}/v1/models", headers={b"authorization": header}).status_code == 401


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/support", "/v1/completions", "/v1/chat/completions"])
def test_no_key_opens_nothing_but_health(world, path):
    method = "POST" if path.endswith("completions") else "GET"
    assert httpx.request(method, world.url + path, content=b"{").status_code == 401
    assert httpx.get(world.url + "/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "alien", "content": "x"}]}, "messages"),
        ({"n": 17}, "n"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a"),
        ({"timeout": 0}, "timeout"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"seed": 2**70}, "seed"),
        ({"stop": 5}, "stop"),
        ({"model": "bare"}, "messages"),  # has no chat template
    ],
)
def test_a_wrong_request_names_its_field(client, change, param):
    body = {"model": "support", "messages": TURN, **change}
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_fields_that_change_nothing_are_taken(client):
    extra = {"top_k": 4, "metadata": {"a": 1}, "user": "me", "n": 1, "logprobs": None, "presence_penalty": 0}
    assert complete(client, "support", extra_body=extra).choices[0].text == complete(client, "support").choices[0].text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 5000, b'{"model": "support"}', b"null"])
def test_a_body_that_is_no_request(world, body):
    for path in ("/v1/chat/completions", "/v1/completions"):
        answer = httpx.post(world.url + path, content=body, headers={"authorization": "Bearer tiny-key"})
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_too_large_and_paths_that_are_not_there(world):
    headers = {"authorization": "Bearer tiny-key"}
    large = httpx.post(f"{world.url}/v1/completions", content=b" " * 1_000_001, headers=headers)
    assert large.status_code == 413
    assert "1000000 bytes" in large.json()["error"]["message"]
    for path in ("/docs", "/redoc", "/v1/engines", "/v1/../etc/passwd"):
        assert httpx.get(world.url + path, headers=headers).status_code == 404
    assert (
        httpx.get(f"{world.url}/v1/completions", headers=headers).json()["error"]["message"].startswith("GET /v1/compl")
    )
