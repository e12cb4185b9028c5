"""Keys: one, or a file of many; what each opens, and how often."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import pytest

from ftlib.registry import keys
from serve.engine.messages import Refused
from serve.front.guard import Bucket, Guard

from .conftest import World


def test_without_keys_everyone_is_let_in() -> None:
    guard = Guard(None, None)
    assert guard.admit("", "127.0.0.1").name == "anonymous"
    assert guard.allow(guard.admit("", "127.0.0.1"), "support")
    with pytest.raises(Refused, match="answers its own machine alone"):
        guard.admit("", "10.0.0.7")


def test_one_key() -> None:
    guard = Guard("secret", None)
    assert guard.admit("Bearer secret", "127.0.0.1").name == "api-key"
    for wrong in ("", "Bearer", "Bearer secre", "Basic secret", "secret", "Bearer secrét"):
        with pytest.raises(Refused) as caught:
            guard.admit(wrong, "127.0.0.1")
        assert caught.value.refusal.status == 401


def test_a_key_of_the_file_opens_its_names_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token = keys.add("app", ["support"], 2, path)
    free = keys.add("admin", path=path)
    guard = Guard(None, path)
    key = guard.admit(f"Bearer {token}", "127.0.0.1")
    assert guard.allow(key, "support@3")
    with pytest.raises(Refused, match="the key 'app' does not open 'sql'. It opens support") as caught:
        guard.check(key, "sql")
    assert caught.value.refusal.status == 403
    guard.admit(f"Bearer {token}", "127.0.0.1")
    with pytest.raises(Refused, match="more often than 2 times a minute") as caught:
        guard.admit(f"Bearer {token}", "127.0.0.1")
    assert caught.value.refusal.status == 429
    assert 1 <= (caught.value.refusal.retry_after or 0) <= 30
    guard.admit(f"Bearer {token}", "127.0.0.1", counted=False)  # looking at the list of models costs nothing
    for _ in range(10):
        guard.admit(f"Bearer {free}", "127.0.0.1")
    later = keys.add("later", path=path)
    assert guard.admit(f"Bearer {later}", "127.0.0.1").name == "later"
    keys.remove("app", path)
    with pytest.raises(Refused):
        guard.admit(f"Bearer {token}", "127.0.0.1")


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("serve.front.guard.time.monotonic", lambda: now[0])
    bucket = Bucket(60)
    assert [bucket.take() for _ in range(60)] == [0.0] * 60
    assert bucket.take() == pytest.approx(1.0)
    now[0] += 2
    assert (bucket.take(), bucket.take()) == (0.0, 0.0)
    assert bucket.take() > 0


def test_a_key_of_one_name_sees_nothing_of_the_others(world: World) -> None:
    """Whether another name is there is no business of its own: what is and what is not sound alike."""
    path = world.home / "keys.json"
    token, free = keys.add("partner", ["support"], path=path), keys.add("house", path=path)
    others = ("bare", "full.model", "sorter", "Engine-")

    def ask(where: str, key: str, **body: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        method = "POST" if body else "GET"
        return httpx.request(method, world.url + where, json=body or None, headers=headers, timeout=30)

    try:
        for name in ("bare", "support"):
            assert ask("/v1/completions", free, model=name, prompt="x", max_tokens=1).status_code == 200
        told = [ask(where, token) for where in ("/v1/models", "/v1/live", "/metrics", "/v1/models/support@99")]
        told += [ask("/v1/completions", token, model=name, prompt="x") for name in ("support@99", "support@x")]
        assert [answer.status_code for answer in told] == [200, 200, 200, 404, 404, 404]
        assert all("support" in answer.text for answer in told)
        assert not [(answer.url, other) for answer in told for other in others if other in answer.text]
        assert "bare" in ask("/metrics", free).text
        assert "bare@1" in ask("/v1/live", free).json()["versions"]
        for where in ("/v1/models/{}", "/v1/completions"):
            said = {}
            for name in ("bare", "nobody", "bare@1", "nobody@1", "suport"):
                body = {} if "{}" in where else {"model": name, "prompt": "x"}
                answer = ask(where.format(name), token, **body)
                said[name] = (answer.status_code, answer.text.replace(name, "NAME"))
            assert len(set(said.values())) == 1, said
            assert said["bare"][0] == 403
        with pytest.raises(openai.PermissionDeniedError):
            world.client(token).completions.create(model="bare", prompt="x")
    finally:
        keys.remove("partner", path)
        keys.remove("house", path)


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("localhost", None, None),
        ("LOCALHOST:8000", None, None),
        ("[::1]:8000", "http://[::1]:8000", None),
        ("127.8.8.8", None, None),
        ("models.example.org", "https://models.example.org", None),
        ("localhost:8000", "https://models.example.org", None),
        ("example.org", None, "host_not_allowed"),
        ("", None, "host_not_allowed"),
        ("localhost@evil.example", None, "host_not_allowed"),
        ("localhost:8000", "http://localhost:3000", "origin_not_allowed"),
        ("localhost:8000", "", "origin_not_allowed"),
        ("localhost:8000", "http://localhost:8000.evil.example", "origin_not_allowed"),
    ],
)
def test_without_a_key_a_request_names_a_host_of_ours(host: str, origin: str | None, code: str | None) -> None:
    Guard("secret", None).check_site("evil.example", "https://evil.example")  # who has the key is no browser's victim
    guard = Guard(None, None, ["models.example.org"])
    if code is None:
        guard.check_site(host, origin)
        return
    with pytest.raises(Refused) as caught:
        guard.check_site(host, origin)
    assert (caught.value.refusal.status, caught.value.refusal.code) == (403, code)
