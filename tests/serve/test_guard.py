"""Keys: one, or a file of many; what each opens, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib.registry import keys
from serve.guard import Bucket, Guard
from serve.protocol import Refused


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
    monkeypatch.setattr("serve.guard.time.monotonic", lambda: now[0])
    bucket = Bucket(60)
    assert [bucket.take() for _ in range(60)] == [0.0] * 60
    assert bucket.take() == pytest.approx(1.0)
    now[0] += 2
    assert (bucket.take(), bucket.take()) == (0.0, 0.0)
    assert bucket.take() > 0
