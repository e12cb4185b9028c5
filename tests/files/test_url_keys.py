"""A key goes to the host that it belongs to, and to no other."""

from __future__ import annotations

import pytest

from ftlib.errors import ConfigError
from ftlib.files.url_keys import key_for


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("OTHER_KEY", "sk-other")


@pytest.mark.parametrize(
    ("url", "variable", "key"),
    [
        ("https://api.openai.com/v1", None, "sk-openai"),
        ("https://API.openai.com:443/v1", None, None),  # another port may be another server
        ("https://api.openai.com.evil.example/v1", None, None),
        ("https://api.openai.com@evil.example/v1", None, None),
        ("https://models.example/v1", None, None),
        ("http://127.0.0.1:8000/v1", None, None),
        ("https://models.example/v1", "OTHER_KEY", "sk-other"),
        ("http://127.0.0.1:8000/v1", "OTHER_KEY", "sk-other"),
    ],
)
def test_a_key_goes_to_its_own_host(url: str, variable: str | None, key: str | None) -> None:
    assert key_for(url, variable) == key


def test_openai_base_url_says_whose_the_key_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    assert key_for("http://127.0.0.1:8000/v1") == "sk-openai"
    assert key_for("http://127.0.0.1:8001/v1") is None
    assert key_for("https://api.openai.com/v1") is None


def test_a_key_does_not_travel_unencrypted_and_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the key in OTHER_KEY would travel unencrypted") as caught:
        key_for("http://models.example/v1", "OTHER_KEY")
    assert "sk-other" not in str(caught.value)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.example/v1")
    with pytest.raises(ConfigError, match="the key in OPENAI_API_KEY would travel unencrypted"):
        key_for("http://models.example/v1")
    assert key_for("http://others.example/v1") is None


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--key-env names NO_SUCH, which the environment does not have\."):
        key_for("https://models.example/v1", "NO_SUCH", "--key-env")
