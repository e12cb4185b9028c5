"""What must not leave: a database's password, and data that its user wants here."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftlib.config import Experiment, Wandb
from ftlib.errors import ConfigError, FtlibError
from ftlib.run import passwords
from ftlib.run.directory import Run
from ftlib.run.tracking import base_url, wandb_mode

from ..conftest import ftlib, write_experiment

URLS = {
    "postgresql://ann:s3cret-word@db:5432/x": "postgresql://ann@db:5432/x",
    "postgresql+psycopg://ann:s3cret-word@db/x?sslmode=require": "postgresql+psycopg://ann@db/x?sslmode=require",
    "mysql://ann:s3cret-w@rd@db/x": "mysql://ann@db/x",
    "mysql://ann:s3cret/w:rd@db/x": "mysql://ann@db/x",
    "postgresql://:s3cret-word@db/x": "postgresql://@db/x",
    "postgresql://db/x?user=ann&password=s3cret-word&a=b": "postgresql://db/x?user=ann&a=b",
    "postgresql://db/x?sslpassword=s3cret-word": "postgresql://db/x",
    "postgresql://[::1]:5432/x": "postgresql://[::1]:5432/x",
    "postgresql://ann@db:5432/x": "postgresql://ann@db:5432/x",
    "sqlite:////tmp/a:b@c.db": "sqlite:////tmp/a:b@c.db",
}


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_seen", {})


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_kept_beside_and_comes_back(home: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = passwords.keep(url)
    assert bare == URLS[url]
    assert passwords.hidden(f"a {url} b") == f"a {bare} b"
    monkeypatch.setattr(passwords, "_seen", {})  # another process
    assert passwords.whole(bare) == url
    if bare == url:
        assert not home.exists()
        return
    assert (home / "secrets.json").stat().st_mode & 0o777 == 0o600
    (home / "secrets.json").chmod(0o644)
    monkeypatch.setattr(passwords, "_seen", {})
    with pytest.raises(FtlibError, match="chmod 600"):
        passwords.whole(bare)
    (home / "secrets.json").unlink()
    assert passwords.whole(bare) == bare
    monkeypatch.setenv(passwords.VARIABLE, url)
    assert passwords.whole(bare) == url


def test_no_file_of_a_run_and_nothing_printed_has_the_password(
    tree: dict[str, Any], home: Path, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real sweep with a real database whose URL holds one; Tune's own state and W&B's files too. Resumed, it opens
    it."""
    url = f"sqlite:///file:{tmp_path}/study.db?uri=true&password=s3cret-word"
    tree["track"] = {"wandb": {"mode": "offline"}, "tensorboard": False}
    tree["train"]["max_steps"] = 2
    tree["sweep"] = {
        "space": {"train.learning_rate": [1e-3, 1e-2]},
        "num_samples": 2,
        "scheduler": {"type": "none"},
        "baseline": False,
        "search": {"type": "optuna", "storage": "sqlite:///wrong.db"},
    }
    file = write_experiment(tmp_path / "x.yaml", tree)
    status, output = ftlib("check", file, f"sweep.search.storage={url}")
    assert status == 0, output
    said = output
    status, output = ftlib("sweep", file, f"sweep.search.storage={url}")
    assert status == 0, output
    (path,) = Path(tree["storage"]).iterdir()
    monkeypatch.setattr(passwords, "_seen", {})
    status, again = ftlib("resume", path)
    assert status == 0, again
    assert "s3cret-word" not in said + output + again
    found = [entry for entry in path.rglob("*") if entry.is_file() and b"s3cret" in entry.read_bytes()]
    assert found == []
    assert Run(path).resolved["experiment"]["sweep"]["search"]["storage"].endswith("study.db?uri=true")
    assert (tmp_path / "study.db").exists()
    (home / "secrets.json").unlink()


@pytest.mark.parametrize(
    "url",
    ["nonsense+x://ann:s3cret-word@db/x", "sqlite://ann:s3cret-word@/x", "postgresql://ann:s3cret-word@127.0.0.1:1/x"],
)
def test_a_database_that_cannot_be_opened_is_said_without_it(tree: dict[str, Any], home: Path, url: str) -> None:
    from ftlib.sweeps.search import make_search

    space = {"train.learning_rate": [1e-3, 1e-2]}
    tree["sweep"] = {"space": space, "search": {"type": "optuna", "storage": url}}
    with pytest.raises(ConfigError, match=r"sweep.search.storage: .*cannot be opened.*FTLIB_SWEEP_STORAGE") as refused:
        make_search(Experiment.parse(tree), "x")
    assert "s3cret" not in str(refused.value)


def test_a_pickled_database_holds_none(home: Path, tmp_path: Path) -> None:
    from ftlib.sweeps.search import Database

    url = f"sqlite:///file:{tmp_path}/study.db?uri=true&password=s3cret-word"
    passwords.keep(url)
    kept = pickle.dumps(Database(url))
    assert b"s3cret" not in kept
    assert pickle.loads(kept).url == url


MODES = [
    ({"WANDB_MODE": "offline"}, "auto", "offline"),
    ({"WANDB_MODE": "dryrun"}, "auto", "offline"),
    ({"WANDB_MODE": "disabled"}, "auto", "disabled"),
    ({"WANDB_MODE": "Offline"}, "online", "offline"),
    ({"WANDB_MODE": "online"}, "auto", "online"),
    ({"WANDB_MODE": "online"}, "offline", "offline"),
    ({"WANDB_DISABLED": "true"}, "online", "disabled"),
    ({"WANDB_DISABLED": "true", "WANDB_MODE": "online"}, "auto", "disabled"),
    ({"WANDB_DISABLED": "false"}, "auto", "online"),
    ({"WANDB_DISABLED": ""}, "disabled", "disabled"),
]


@pytest.mark.parametrize(("said", "mode", "right"), MODES)
def test_what_wandbs_variables_say_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], mode: Any, right: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    for key, value in said.items():
        monkeypatch.setenv(key, value)
    assert wandb_mode(Wandb(mode=mode)) == right


def test_a_mode_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ConfigError, match="WANDB_MODE is 'ofline'.*Did you mean 'offline'"):
        wandb_mode(Wandb())


def test_the_key_is_that_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key for W&B's own service is none for a company's, and the other way round."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n login user\n password {'a' * 40}\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert (base_url(), wandb_mode(Wandb())) == ("https://api.wandb.ai", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.corp:8443/")
    assert wandb_mode(Wandb()) == "offline"
    with pytest.raises(ConfigError, match="no key for https://wandb.corp:8443"):
        wandb_mode(Wandb(mode="online"))
    with (tmp_path / ".netrc").open("a") as file:
        file.write(f"machine wandb.corp:8443\n login user\n password {'b' * 40}\n")
    assert wandb_mode(Wandb()) == "online"
    monkeypatch.delenv("WANDB_BASE_URL")
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nbase_url = https://other.corp\n")
    assert (base_url(), wandb_mode(Wandb())) == ("https://other.corp", "offline")
    settings.write_text("[default]\nmode = disabled\n")
    assert wandb_mode(Wandb()) == "disabled"


def test_a_job_takes_the_word_along(monkeypatch: pytest.MonkeyPatch) -> None:
    from ftlib.remote.jobs import _environment

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert _environment("x.zip", False, {})["env_vars"]["WANDB_MODE"] == "offline"


def test_the_command_line_shows_no_password(tree: dict[str, Any], home: Path, tmp_path: Path) -> None:
    """W&B writes down how a program was called."""
    file = write_experiment(tmp_path / "x.yaml", tree)
    space = "sweep.space={train.learning_rate: [0.1, 0.2]}"
    url = "postgresql://ann:s3cret-word@db/x"
    program = (
        "import sys; from ftlib.driver.load import as_written, load\n"
        "o = tuple(sys.argv[2:]); load(sys.argv[1], o); print(sys.argv, as_written(sys.argv[1], o, False))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            str(file),
            space,
            f"sweep.search={json.dumps({'type': 'optuna', 'storage': url})}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "postgresql://ann@db/x" in done.stdout
    assert "s3cret" not in done.stdout
