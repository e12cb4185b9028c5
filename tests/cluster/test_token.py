"""The token: found where Ray finds it, never readable by others."""

import os
from pathlib import Path

import pytest

from ftlib.cluster import token


@pytest.fixture
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "deep" / "token"))
    return tmp_path / "deep" / "token"


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_a_new_token_is_its_owners_alone(file: Path) -> None:
    before = os.umask(0)
    try:
        assert token.ensure_token() == file
    finally:
        os.umask(before)
    assert mode(file) == 0o600
    written = file.read_text()
    assert len(written) == 64
    assert token.ensure_token() == file
    assert file.read_text() == written
    assert token.find_token() == written


def test_an_open_token_file_is_closed(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("abc\n")
    file.chmod(0o644)
    assert token.find_token() == "abc"
    assert mode(file) == 0o600


def test_the_environment_comes_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token.ensure_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "other")
    assert token.find_token() == "other"
    assert token.headers("other") == {"Authorization": "Bearer other"}
    assert token.headers(None) == {}


def test_ray_reads_the_token_that_we_wrote(file: Path) -> None:
    from ray._raylet import AuthenticationTokenLoader

    token.ensure_token()
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    assert loader.has_token(ignore_auth_mode=True)
    loader.reset_cache()


@pytest.mark.usefixtures("ray_local")
def test_a_local_cluster_asks_for_a_token() -> None:
    from ray._raylet import AuthenticationMode, get_authentication_mode

    assert get_authentication_mode() == AuthenticationMode.TOKEN
    assert mode(token.token_file()) == 0o600
