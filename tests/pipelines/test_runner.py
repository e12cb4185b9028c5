"""`ftlib pipeline` over recipes alone: what is done, what is skipped and why, what a failure and a kill leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ftlib as library
from tests.conftest import ftlib, write_jsonl

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FTLIB_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    write_jsonl(
        tmp_path / "t.jsonl", [{"text": f"ticket {number % 9}", "label": "ab"[number % 2]} for number in range(20)]
    )
    write_jsonl(tmp_path / "u.jsonl", [{"text": "other"}])
    write_recipe("few", "t.jsonl", {"filter": {"where": {"label": "a"}}})
    write_recipe("tickets", "t.jsonl", "dedupe")
    write_recipe("others", "u.jsonl", "dedupe")
    return tmp_path


def write_recipe(name: str, source: str, *steps: Any) -> None:
    Path(f"{name}.yaml").write_text(json.dumps({"name": name, "from": [source], "steps": steps}))


def write_pipeline(**steps: Any) -> None:
    Path("p.yaml").write_text(json.dumps({"name": "p", "steps": steps}))


def said(*options: str, status: int = 0) -> list[str]:
    """What the command says of each step."""
    found, lines = ftlib("pipeline", "p.yaml", *options)
    assert found == status, lines
    return [line for line in lines.splitlines() if ":" in line and not line.endswith(" block")]


@pytest.fixture
def two(folder: Path) -> None:
    """Two steps in a line, and one beside them."""
    write_pipeline(
        all={"build": "tickets.yaml"}, few={"build": "few.yaml", "needs": "all"}, others={"build": "others.yaml"}
    )


@pytest.mark.usefixtures("two")
def test_what_has_not_changed_is_skipped() -> None:
    assert [line.rpartition(" in ")[0] or line for line in said()[:6]] == [
        "all: it was not done yet", "all: done", "few: it was not done yet", "few: done",
        "others: it was not done yet", "others: done",
    ]  # fmt: skip
    last = f"0 done, 3 unchanged, 0 not done: {Path('pipelines/p/pipeline.html').absolute()}"
    assert said() == [*(f"{name}: nothing has changed" for name in ("all", "few", "others")), last]
    write_jsonl(Path("u.jsonl"), [{"text": "another"}])
    assert said("--dry-run") == [
        "all: nothing has changed", "few: nothing has changed", "others: u.jsonl has changed"
    ]  # fmt: skip
    assert said()[2] == "others: u.jsonl has changed"


@pytest.mark.usefixtures("two")
def test_a_change_does_what_needs_it_again_unless_it_comes_to_the_same() -> None:
    said()
    write_recipe("tickets", "t.jsonl", {"dedupe": {"keep": "longest"}})
    assert said("--dry-run")[:2] == [
        'all: steps.0.dedupe.keep is "longest"; steps.0.dedupe is left out',
        "few: it needs all, which is done before, unless that comes to the same",
    ]
    assert "few: data:tickets@2 instead of data:tickets@1" in said()
    Path("tickets.yaml").write_text("# a word\n" + Path("tickets.yaml").read_text())
    assert said()[0] == "all: nothing has changed"
    write_pipeline(all={"build": "tickets.yaml", "workers": 1}, few={"build": "few.yaml", "needs": "all"})
    assert said()[:2] == ["all: nothing has changed", "few: nothing has changed"]


@pytest.mark.usefixtures("two")
def test_steps_can_be_asked_for() -> None:
    said()
    assert said("--from", "all", "--dry-run") == [
        "all: it is asked for", "few: it is asked for", "others: nothing has changed"
    ]  # fmt: skip
    assert said("--only", "few", "--dry-run") == ["few: it is asked for"]
    assert [line.partition(" in ")[0] for line in said("--only", "few")[:2]] == ["few: it is asked for", "few: done"]
    assert said("--only", "fwe", status=2) == [
        "error: the pipeline p has no step 'fwe'. Did you mean 'few'?"
    ]  # fmt: skip
    assert "give one of them" in said("--only", "few", "--from", "all", status=2)[0]
    assert "has no `when`" in said("--if-due", status=2)[0]


@pytest.mark.usefixtures("two")
def test_a_failure_stops_what_needs_it_and_nothing_else() -> None:
    write_recipe("tickets", "t.jsonl", {"filter": {"min_chars": 900}})
    lines = said(status=1)
    assert lines[1:3] == [
        "warning: all failed: steps: after filter no row is left (20 min_chars): there is nothing to train on.",
        "few: is not done: it needs all, which is not done",
    ]
    assert lines[-1].startswith("1 done, 0 unchanged, 2 not done")
    assert library.pipeline("p.yaml") == {"all": "failed", "few": "waiting", "others": "unchanged"}
    page = Path("pipelines/p/pipeline.html").read_text()
    assert "all failed" in page
    assert "it needs all, which is not done" in page
    write_recipe("tickets", "t.jsonl", "dedupe")
    assert library.pipeline("p.yaml") == {"all": "done", "few": "done", "others": "unchanged"}


def test_a_result_that_is_gone_is_made_again(folder: Path) -> None:
    write_pipeline(all={"build": "tickets.yaml"})
    said()
    os.rename(folder / "home" / "registry", folder / "home" / "old")
    assert said()[0] == "all: data:tickets@1 is gone"


def test_files_are_read_before_anything_is_done(folder: Path) -> None:
    write_pipeline(
        all={"build": "tickets.yaml", "set": {"steps.0": {"dedupe": {"naer": 1}}}}, few={"build": "feww.yaml"}
    )
    assert said(status=2) == [
        "error: steps.all: tickets.yaml: there is no key 'steps.0.dedupe.naer'. Did you mean 'near'?",
        "steps.few: feww.yaml: no such file.",
    ]
    assert not (folder / "pipelines").exists()
    write_pipeline(all={"build": "tickets.yaml"}, again={"build": "tickets.yaml"})
    assert said(status=2) == ["error: steps all and again both make data:tickets: give one another name."]


def test_a_step_that_names_what_another_makes_comes_after_it(folder: Path) -> None:
    experiment = {"name": "e", "model": {"name_or_path": "base"}, "data": {"train": "data:tickets"}}
    Path("e.yaml").write_text(json.dumps({**experiment, "method": {"type": "sft"}}))
    write_pipeline(sft={"train": "e.yaml"}, all={"build": "tickets.yaml"})
    assert said("--dry-run") == ["all: it was not done yet", "sft: it needs all, which is done before"]
    write_pipeline(sft={"train": "e.yaml"})
    assert "error: steps.sft: there is no data 'tickets' in the registry" in said("--dry-run", status=2)[0]


@pytest.mark.usefixtures("two")
def test_a_kill_costs_the_step_that_was_under_way(folder: Path) -> None:
    """The second recipe asks a teacher that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asks = {"kind": "instructions", "teacher": f"http://127.0.0.1:{silent.getsockname()[1]}/v1"}
        write_recipe("few", "t.jsonl", {"generate": asks})
        kill_after_the_first_step(folder)
    write_recipe("few", "t.jsonl", "dedupe")
    assert said()[0] == "all: nothing has changed"


def kill_after_the_first_step(folder: Path) -> None:
    code = "from ftlib.cli import cli; cli()"
    child = subprocess.Popen([sys.executable, "-c", code, "pipeline", "p.yaml"], stdout=subprocess.DEVNULL)
    record = folder / "pipelines" / "p" / "steps" / "all.json"
    for _ in range(600):
        if record.exists() and json.loads(record.read_text())["state"] == "done":
            break
        time.sleep(0.05)
    assert "is being worked on by process" in said(status=1)[0]
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_a_damaged_record_is_named(folder: Path) -> None:
    write_pipeline(all={"build": "tickets.yaml"})
    said()
    record = folder / "pipelines" / "p" / "steps" / "all.json"
    record.write_text('{"state": "done"}')
    assert f"all failed: {record} is damaged" in said(status=1)[0]
