"""The keys' file: what is in it and what is not, who may read it, and what happens when it changes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from ftlib.errors import InputError
from ftlib.registry import keys
from ftlib.registry.keys import Keys

from ..conftest import ftlib


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path))
    return tmp_path


def test_a_key_is_found_by_its_token_and_stored_as_its_hash_alone(home):
    token = keys.add("web", ["support", "sql"], 60)
    file = home / "keys.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(token.removeprefix(keys.PREFIX)) == 43  # 32 bytes in base64
    assert token not in file.read_text()
    assert token.removeprefix(keys.PREFIX) not in file.read_text()
    key = Keys.load().find(token)
    assert (key.name, key.adapters, key.requests_per_minute) == ("web", ("support", "sql"), 60)
    for wrong in ("", token[:-1], token + "x", key.sha256, "ü" * 50, "\ud800", "x" * 100_000):
        assert Keys.load().find(wrong) is None


def test_what_a_key_allows():
    found = Keys.load()
    limited, free = found.find(keys.add("limited", ["support"])), found.find(keys.add("free"))
    assert [limited.allows(name) for name in ("support", "support@3", "sql", "supportx", "")] == [
        True,
        True,
        *[False] * 3,
    ]
    assert free.allows("anything")


def test_a_change_counts_at_once(home):
    found = Keys.load()
    first, second = keys.add("first"), keys.add("second")
    assert [key.name for key in found] == ["first", "second"]
    keys.remove("first")
    assert found.find(first) is None
    assert found.find(second).name == "second"
    (home / "keys.json").unlink()
    assert found.find(second) is None


def test_the_file_is_read_only_when_it_changed(home, monkeypatch):
    token = keys.add("web")
    found = Keys.load()
    monkeypatch.setattr(keys, "_read", lambda path: pytest.fail("it was read again"))
    assert found.find(token).name == "web"


def test_a_file_that_others_can_read_is_refused(home, caplog):
    token = keys.add("web")
    found = Keys.load()
    (home / "keys.json").chmod(0o640)
    with pytest.raises(InputError, match=f"chmod 600 {home / 'keys.json'}"):
        Keys.load()
    assert found.find(token).name == "web"  # an endpoint that runs goes on, and says so
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["keys"][0].pop("adapters"),
        lambda tree: tree["keys"][0].update(adapters="support"),  # would allow the names s, u, p ...
        lambda tree: tree["keys"][0].update(requests_per_minute=0),
        lambda tree: tree["keys"][0].update(sha256="é" * 64),
        lambda tree: tree.clear(),
    ],
)
def test_a_damaged_file_allows_nothing(home, change):
    keys.add("web")
    tree = json.loads((home / "keys.json").read_text())
    change(tree)
    (home / "keys.json").write_text(json.dumps(tree))
    with pytest.raises(InputError, match="is damaged"):
        Keys.load()


def test_names_and_rates_that_are_none():
    keys.add("web")
    with pytest.raises(InputError, match="remove it first"):
        keys.add("web")
    with pytest.raises(InputError, match="Did you mean 'web'"):
        keys.remove("wbe")
    for name in ("", "../x", "a b", "a\n", "x" * 65):
        with pytest.raises(InputError, match="cannot be a key's name"):
            keys.add(name)
    with pytest.raises(InputError, match="1 or more"):
        keys.add("slow", requests_per_minute=0)


def test_keys_made_at_once_are_all_there():
    threads = [threading.Thread(target=keys.add, args=[f"k{number}"]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(Keys.load())) == 12
    assert not [
        name for name in os.listdir(os.environ["FTLIB_HOME"]) if name.endswith(".tmp") or ".json." in name[6:-5]
    ]


def test_the_commands():
    assert ftlib("keys", "list")[1].startswith("there are no keys")
    status, output = ftlib("keys", "add", "web", "--adapters", "support, sql", "--requests-per-minute", "9")
    assert status == 0
    assert "'support' is not in the registry yet" in output
    assert Keys.load().find(output.splitlines()[-1]).adapters == ("support", "sql")
    status, output = ftlib("keys", "list")
    assert "web" in output
    assert "support, sql" in output
    assert output.count(keys.PREFIX) == 0
    assert ftlib("keys", "remove", "web") == (0, "key web is gone\n")
    assert ftlib("keys", "remove", "web")[0] == 2
