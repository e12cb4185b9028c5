"""The logs: what a line says, that no secret is in it, that they stay small, and that they never harm a request."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ftlib.errors import InputError
from serve.front import logs
from serve.front.logs import Access, AccessLog, Redaction, SampleLog


def access(number: int = 0, **changes: Any) -> Access:
    values = {"request_id": f"r{number}", "key": "web", "model": "support", "version": "support@3", "status": 200}
    return Access(**values | changes)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_a_request(tmp_path):
    path = tmp_path / "deep" / "access.jsonl"
    log = AccessLog(path)
    log.write(access(prompt_tokens=5, completion_tokens=7, queue_s=1 / 3, finish_reason="stop", stream=True))
    log.write(access(model="x\n" * 9999, version=None, status=404, error="model_not_found"))
    first, second = lines(path)
    assert list(first) == [
        *["time", "request_id", "key", "model", "version", "status", "stream", "prompt_tokens", "completion_tokens"],
        *["queue_s", "ttft_s", "total_s", "finish_reason", "error"],
    ]
    assert (first["queue_s"], first["ttft_s"], first["finish_reason"]) == (0.333333, None, "stop")
    assert abs(first["time"] - time.time()) < 60
    assert (second["error"], len(second["model"])) == ("model_not_found", logs.LONGEST_NAME)
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_are_bounded_and_the_newest_are_kept(tmp_path):
    path = tmp_path / "access.jsonl"
    log = AccessLog(path, max_bytes=2000, keep=2)
    for number in range(100):
        log.write(access(number))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["access.jsonl", "access.jsonl.1", "access.jsonl.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    kept = [row["request_id"] for file in reversed(files) for row in lines(file)]
    assert kept == [f"r{number}" for number in range(100 - len(kept), 100)]


def test_nothing_is_kept_where_no_full_file_is(tmp_path):
    log = AccessLog(tmp_path / "access.jsonl", max_bytes=500, keep=0)
    for number in range(20):
        log.write(access(number))
    assert [file.name for file in tmp_path.iterdir()] == ["access.jsonl"]


def many(path: Path, name: str) -> None:
    log = AccessLog(path, max_bytes=5000, keep=1000)
    for number in range(200):
        log.write(access(request_id=f"{name}{number}"))


def test_several_writers_lose_no_line(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=many, args=(tmp_path / "access.jsonl", name)) for name in "abcdef"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = {row["request_id"] for file in tmp_path.iterdir() for row in lines(file)}
    assert found == {f"{name}{number}" for name in "abcdef" for number in range(200)}
    full = [file.stat().st_size for file in tmp_path.iterdir() if file.name != "access.jsonl"]
    assert all(4500 < size <= 5000 for size in full)  # nobody rotated a file that another had just begun


def test_a_disk_that_is_full_is_one_warning(tmp_path, caplog):
    """The kernel's own limit on the size of a file stands for the disk: writes beyond it are cut short, then fail."""
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    log.write(access(0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:
        for number in range(1, 4):
            log.write(access(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    log.write(access(4))
    assert [row["request_id"] for row in lines(path)] == ["r0", "r4"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "requests go on unlogged" in caplog.messages[0]
    assert "3 lines were lost" in caplog.messages[1]


def test_a_folder_in_the_way_raises_nothing(tmp_path, caplog):
    (tmp_path / "access.jsonl").mkdir()
    AccessLog(tmp_path / "access.jsonl").write(access())
    assert "cannot be written" in caplog.text


def test_a_file_moved_away_is_begun_anew(tmp_path):
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    log.write(access(0))
    os.rename(path, tmp_path / "moved")
    log.write(access(1))
    assert [row["request_id"] for row in lines(path)] == ["r1"]


SECRETS = {
    "[email]": ["a.b+c@x-y.co.uk", "jürgen@example.org"],
    "[card]": ["4111 1111 1111 1111", "4111-1111-1111-1111", "378282246310005"],
    "[iban]": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819"],
    "[phone]": ["+49 (0)30 1234567", "030/1234567", "(555) 123-4567", "+15551234567"],
    "[key]": [
        *["sk-proj-abcDEF1234567890", "hf_abcdefghijklmnopqrst", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18],
        *[
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
            "ftlib-" + "aB3_" * 11,
            "0123456789abcdef" * 2,
        ],
    ],
}
HARMLESS = [
    "on 2024-01-02 at 10:30:45",
    "3.14159265358979 and 1 000 000 and 2,000,000",
    "def some_long_function_name_without_any_digit(self, other): ...",
    "version 1.2.3 of x@2, f(x) = 0.5",
]


@pytest.mark.parametrize(("placeholder", "secret"), [(kind, text) for kind, some in SECRETS.items() for text in some])
def test_secrets_are_redacted(placeholder, secret):
    assert Redaction()(f"write to {secret}, or (call) {secret}") == f"write to {placeholder}, or (call) {placeholder}"


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_stays(text):
    assert Redaction()(text) == text


def test_own_patterns():
    assert Redaction([r"CASE-\d+"])("about CASE-123") == "about [redacted]"
    with pytest.raises(InputError, match="is no regular expression"):
        Redaction(["("])


@pytest.mark.parametrize("text", ["a", "a-", "1 ", "0", "+1 ", "a@", "@a.", "eyJ-a", "AB12", "_", "(0", "0 0(", "sk-"])
def test_no_text_makes_redaction_slow(text):
    """Ten times as long a text costs about ten times as much; with a pattern that goes back it is a hundred times."""
    whole, part = (text * 500_000)[: logs.LONGEST], (text * 500_000)[: logs.LONGEST // 10]
    assert seconds(whole) < 30 * seconds(part)


def seconds(text: str) -> float:
    """The least of three times, of this thread."""
    took = []
    for _ in range(3):
        started = time.thread_time()
        Redaction()(text)
        took.append(time.thread_time() - started)
    return min(took)


def test_a_secret_is_not_cut_into_a_part_that_is_kept():
    text = "x " * (logs.LONGEST - 5) + "4111 1111 1111 1111 and more " * 9
    assert "4111" not in Redaction()(text)
    assert len(Redaction()("y" * 10**6)) <= logs.LONGEST


def test_samples_hold_redacted_texts(tmp_path):
    log = SampleLog(tmp_path / "samples.jsonl", share=1)
    log.write(access(), "I am a@b.org", "hello \ud800 b@c.org", -0.25)
    (row,) = lines(tmp_path / "samples.jsonl")
    assert (row["prompt"], row["answer"], row["mean_logprob"]) == ("I am [email]", "hello \ud800 [email]", -0.25)
    assert row["version"] == "support@3"


def test_what_cannot_be_redacted_is_not_kept(tmp_path):
    SampleLog(tmp_path / "samples.jsonl", share=1).write(access(), b"bytes", "answer", None)  # type: ignore[arg-type]
    (row,) = lines(tmp_path / "samples.jsonl")
    assert row["prompt"] is row["answer"] is None


def test_shares():
    def drawn(share: float) -> int:
        log = SampleLog(Path("unused"), share)
        return sum(log.draws() for _ in range(2000))

    assert (drawn(0), drawn(1)) == (0, 2000)
    assert 300 < drawn(0.2) < 500
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="no share"):
            SampleLog(Path("unused"), share)
