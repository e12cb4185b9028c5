"""The drift report over real log files: like traffic is quiet, each kind of drift is named, and a bad log is said."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ftlib.errors import InputError
from ftlib.files.atomic import write_json
from ftlib.registry import monitor, registry
from ftlib.registry.drift import Texts, expectations
from ftlib.registry.profile import Part
from ftlib.run.directory import Run
from serve.front.logs import Access, AccessLog, SampleLog

from ..conftest import ftlib

THINGS = [f"thing{number}" for number in range(200)]


def asked(seed: int, words: list[str] = THINGS, least: int = 6, most: int = 12) -> tuple[str, str]:
    """A prompt and an answer. A token a word."""
    drawing = random.Random(seed)
    prompt = " ".join(drawing.choices(words, k=drawing.randint(least, most)))
    return f"what is {prompt}", f"it is {drawing.choice(words)}"


def texts(some: list[str]) -> list[Texts]:
    return [Texts.of(len(text.split()), text) for text in some]


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    parts = {}
    for index, name in enumerate(("prompt", "answer")):
        found = texts([asked(seed)[index] for seed in range(1000)])
        kept, held_out = Texts.together(found[200:]), found[:200]
        parts[name] = Part(kept, expectations(kept, held_out)).to_json()
    return {"rows": 1000, "of": 1000, **parts}


@pytest.fixture
def version(profile: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> registry.Version:
    """A version whose training asked the same kind of question."""
    monkeypatch.setenv("FTLIB_HOME", str(tmp_path / "home"))
    run = Run.create(tmp_path / "runs", "tiny", "", {})
    trial = run.trial("a")
    (trial.path / "model").mkdir(parents=True)
    save_file({"w": np.ones(2, "f4")}, trial.path / "model" / "model.safetensors")
    experiment = {"method": {"type": "sft"}}
    write_json(trial.path / "manifest.json", {"metrics": {"eval_loss": 1.5}, "experiment": experiment})
    trial.set_state("finished")

    def keep(staged: registry.Version) -> dict[str, Any]:
        write_json(staged.path / "profile.json", profile)
        return {}

    return registry.register(run, trial, "support", examine=keep)


def write(count: int, logprob: float = -1.4, status: int = 200, version: str = "support@1", **kind: Any) -> None:
    """What the endpoint would log."""
    folder = monitor.logs_folder()
    access_log, samples = AccessLog(folder / "access.jsonl"), SampleLog(folder / "samples.jsonl", 1)
    for seed in range(5000, 5000 + count):
        prompt, answer = asked(seed, **kind)
        access = Access(
            request_id=f"r{seed}",
            key=None,
            model="support",
            version=version,
            status=status,
            prompt_tokens=len(prompt.split()),
            completion_tokens=len(answer.split()),
        )
        access_log.write(access)
        if status == 200:
            samples.write(access, prompt, answer, logprob + random.Random(seed).gauss(0, 0.2))


def drifted(**options: Any) -> set[str]:
    return {finding.what for finding in monitor.monitor("support", **options).drifted}


def test_traffic_like_training_is_quiet(version):
    write(100)
    report = monitor.monitor("support")
    assert (report.version, report.requests, report.samples, report.damaged) == ("support@1", 100, 100, 0)
    assert [finding.what for finding in report.findings] == [
        *["requests", "prompt length", "prompt words", "prompt new words"],
        *["answer length", "answer words", "answer new words", "confidence"],
    ]
    assert report.drifted == []
    assert report.notes == ()


def test_each_kind_of_drift_is_named(version):
    write(100, least=20, most=30)
    assert drifted() == {"prompt length"}


def test_other_words(version):
    write(100, words=THINGS[:100] + [f"other{number}" for number in range(30)])
    assert (
        {"prompt words", "prompt new words", "answer new words"}
        <= drifted()
        <= {*["prompt words", "prompt new words", "answer words", "answer new words"]}
    )


def test_a_model_less_sure_of_itself(version):
    write(100, logprob=-2.2)
    assert drifted() == {"confidence"}
    assert "-1.500 a token" in {finding.training for finding in monitor.monitor("support").findings}


def test_a_model_surer_of_itself_is_no_drift(version):
    write(100, logprob=-0.1)
    assert drifted() == set()


def test_requests_that_fail(version):
    write(100)
    write(5, status=500)
    assert drifted() == {"requests"}
    assert monitor.monitor("support").statuses == {"200": 100, "500": 5}


def test_other_versions_and_other_times_are_left_out(version, tmp_path):
    write(100)
    write(100, version="support@2", words=["elsewhere"])
    write(30, version="other@1")
    assert drifted() == set()
    assert drifted(hours=1) == set()
    lines = (monitor.logs_folder() / "samples.jsonl").read_text().splitlines()
    old = [json.loads(line) | {"time": 1e9} for line in lines]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert monitor.monitor("support", [tmp_path / "old.jsonl"]).requests == 100
    with pytest.raises(InputError, match=r"no request for support@1 is in .*old\.jsonl of the last 1 hours"):
        monitor.monitor("support", [tmp_path / "old.jsonl"], hours=1)


def test_redacted_words_are_no_new_words(version):
    for seed in range(100):
        prompt, answer = asked(seed)
        tokens = {"prompt_tokens": 9, "completion_tokens": 3}
        access = Access(request_id="r", key=None, model="support", version="support@1", status=200, **tokens)
        log = SampleLog(monitor.logs_folder() / "samples.jsonl", 1)
        log.write(access, f"{prompt} anna@example.org +49 30 1234567", answer, None)
    assert "prompt new words" not in drifted()


def test_damaged_lines_are_counted(version):
    write(50)
    with (monitor.logs_folder() / "samples.jsonl").open("a") as file:
        file.write('{"time": 1, "status"\n[]\n{}\n')
        for spoiled in ({"prompt": 5}, {"prompt_tokens": None}, {"answer": None}):
            row = {"time": 4e9, "status": 200, "version": "support@1", "prompt": "p", "answer": "a"}
            file.write(json.dumps({**row, "prompt_tokens": 1, "completion_tokens": 1, **spoiled}) + "\n")
    report = monitor.monitor("support")
    assert (report.damaged, report.samples) == (3, 50)


def test_too_few_samples_are_no_verdict(version):
    write(10, words=["elsewhere"])
    report = monitor.monitor("support")
    assert report.drifted == []
    assert "10 sampled requests are too few" in report.notes[0]


def test_rotated_logs_are_read_too(version):
    write(60)
    folder = monitor.logs_folder()
    (folder / "samples.jsonl").rename(folder / "samples.jsonl.1")
    write(60)
    assert monitor.monitor("support").samples == 120


def test_what_is_not_there(version, tmp_path):
    with pytest.raises(InputError, match="there is no log in"):
        monitor.monitor("support")
    with pytest.raises(InputError, match=r"there is no log in .*nowhere"):
        monitor.monitor("support", [tmp_path / "nowhere"])
    with pytest.raises(InputError, match="Did you mean 'support'"):
        monitor.monitor("suport")


def test_the_command(version):
    write(50, logprob=-2.5)
    status, output = ftlib("monitor", "support")
    assert status == 0, output
    assert "support@1: 50 requests (50 x 200), 50 of them sampled" in output
    assert "drifted: confidence" in output
    status, output = ftlib("monitor", "support", "--json")
    report = json.loads(output)
    assert report["drifted"] is True
    assert Counter(finding["drifted"] for finding in report["findings"]) == {False: 7, True: 1}
