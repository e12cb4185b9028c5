"""A deployed model is kept up to date: what people asked becomes rows, and `when` says when."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ftlib.config.pipeline import Pipeline
from ftlib.data.sampled import sampled
from ftlib.pipelines.due import figures
from ftlib.registry.monitor import Finding, Report, logs_folder
from ftlib.run.pipelines import PipelineFolder
from serve.front.logs import Access, SampleLog
from tests.conftest import ftlib, write_jsonl

ASKED = [{"role": "user", "content": "My mail is ann@example.org. What now?"}]


def asked(number: int, at: float, version: str = "support@1", turns: Any = ASKED, **more: Any) -> None:
    """A sampled request, as the endpoint logs it."""
    log = SampleLog(logs_folder() / "samples.jsonl", 1.0)
    told = {"finish_reason": "stop", "status": 200, "time": at, **more}
    log.write(
        Access(request_id=f"r{number}", key=None, model="support", version=version, **told), "p", "Wait.", -1.0, turns
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FTLIB_REGISTRY", raising=False)
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "t.jsonl", [{"prompt": "Where now?", "completion": "Go.", "kind": "way"}])
    Path("r.yaml").write_text(json.dumps({"name": "t", "from": ["t.jsonl", "log:support"]}))
    Path("p.yaml").write_text(json.dumps({"name": "p", "steps": {"data": {"build": "r.yaml"}}, "when": "age > 7"}))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_only_whole_chats_of_the_name_are_rows() -> None:
    asked(1, 10.0)
    asked(2, 20.0, "other@1")
    asked(3, 30.0, finish_reason="length")
    asked(4, 40.0, status=500)
    asked(5, 50.0, turns=None)  # no chat
    asked(6, 60.0, turns=[{"role": "assistant", "content": "", "tool_calls": []}])
    asked(7, 70.0, "support@2", turns=[{"role": "user", "content": "x" * 20_001}])  # the log would cut it
    asked(8, 80.0, "support@2")
    with (logs_folder() / "samples.jsonl").open("a") as log:
        log.write('{"half": \n[1]\n')
    found = list(sampled("support"))
    assert [chat.request for chat in found] == ["r1", "r8"]
    assert found[0].messages == [
        {"role": "user", "content": "My mail is [email]. What now?"}, {"role": "assistant", "content": "Wait."}
    ]  # fmt: skip
    assert [chat.request for chat in sampled("support", since=10.0, until=80.0)] == ["r8"]
    assert [chat.request for chat in sampled("support", until=79.0)] == ["r1"]


@pytest.mark.usefixtures("folder")
def test_what_was_asked_becomes_rows_when_it_is_due() -> None:
    status, said = ftlib("pipeline", "p.yaml")
    assert (status, "data:t@1" in said) == (0, True), said
    asked(1, time.time())
    assert "data: nothing has changed" in ftlib("pipeline", "p.yaml")[1]
    status, said = ftlib("pipeline", "p.yaml", "--if-due")
    assert (status, said.splitlines()) == (0, [said.strip()])  # nothing but this line
    assert said.startswith("not due: age > 7 (age 0")
    Path("p.yaml").write_text(Path("p.yaml").read_text().replace("> 7", ">= 0"))
    status, said = ftlib("pipeline", "p.yaml", "--if-due")
    assert said.startswith("due: age >= 0 (age 0")
    assert "\ndata: requests until 20" in said
    assert "data:t@2" in said
    status, said = ftlib("data", "show", "t", "--rows", 5)
    ours, theirs = (json.loads(line) for line in said.splitlines()[-2:])
    assert theirs["messages"][0]["content"] == "My mail is [email]. What now?"
    assert theirs["_from"] == "log:support r1"
    assert (ours["messages"][1]["content"], ours["kind"], "prompt" in ours) == ("Go.", "way", False)  # a chat too
    assert "data: nothing has changed" in ftlib("pipeline", "p.yaml")[1]


def test_who_watches_stays_until_a_ctrl_c(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path("p.yaml").read_text().replace("> 7", ">= 0")
    acts = iter([lambda: Path("p.yaml").write_text("name: ["), lambda: Path("p.yaml").write_text(whole)])

    def sleep(seconds: float) -> None:
        act = next(acts, None)
        if act is None:
            raise KeyboardInterrupt
        act()

    monkeypatch.setattr("ftlib.cli.pipelines.time.sleep", sleep)
    status, said = ftlib("pipeline", "p.yaml", "--watch", "--every", "1h")
    assert status == 0, said
    told = said.partition("warning: p.yaml")[2]
    assert "due: age >= 0 (age 0)" in told  # it has looked again
    assert told.rstrip().endswith("pipeline.html")


def test_rows_count_from_when_the_data_was_last_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.parse({"name": "p", "steps": {"watch": {"monitor": "support"}}, "when": "new_rows > 1"})
    where = PipelineFolder(folder / "pipelines" / "p")
    monkeypatch.setattr("ftlib.pipelines.due.monitored", lambda step: (None, "nobody has asked"))
    for number in range(4):
        asked(number, 100.0 + number)
    assert figures(pipeline, where) == {"drift": None, "new_rows": 4.0, "age": None}
    where.begin_round(101.0)
    assert figures(pipeline, where)["new_rows"] == 2.0


def test_drift_is_above_its_limit_exactly_where_a_measure_of_texts_is() -> None:
    def report(*values: float) -> Report:
        measures = ("stability index (PSI)", "Jensen-Shannon, bits", "share not in training")
        limits = (0.3, 0.15, 0.08)  # chance gives 0.1, 0.1, 0.05
        found = [Finding("prompt", "", "", *one) for one in zip(measures, values, limits, strict=True)]
        found.append(Finding("requests", "", "", "share of 5xx", 1.0, 0.01))
        return Report("a@1", 9, {}, 9, None, None, 0, tuple(found), ())

    assert report(0.3, 0.1, 0.05).drift == pytest.approx(0.2)
    assert report(0.1, 0.1, 0.05).drift == pytest.approx(0.0)
    assert report(0.0, 0.16, 0.05).drift == pytest.approx(0.24)
    assert Report("a@1", 9, {}, 9, None, None, 0, (), ()).drift is None
