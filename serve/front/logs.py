"""What the endpoint writes down: a line a request, and of a share of them the texts too, redacted.

    $FTLIB_HOME/logs/access.jsonl    who asked which version, how it ended, how long it took; no text
    $FTLIB_HOME/logs/samples.jsonl   the same of sampled requests, with prompt and answer: what `ftlib monitor` reads

Both are JSON lines, private to the user, and bounded: a full file becomes `access.jsonl.1`, that one `.2`, and the
oldest is dropped. Several replicas may write one file. Nothing here raises: a log that cannot be written is one
warning, since no request may fail for it.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ftlib.errors import InputError
from ftlib.files.locks import hold

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**20  # of one file
KEEP = 4  # full files beside the one that is written
LONGEST = 20_000  # characters of a prompt or an answer in the sample log
LONGEST_NAME = 128  # characters of what a client calls a model: it need not be one

# Each is linear in the text, whatever a client sends: runs are bounded, or begin at one place only.
REDACTED: tuple[tuple[str, str], ...] = (
    ("email", r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
    ("key", r"\b(?:sk|pk|rk|gh[pousr]|github_pat|glpat|xox[abeprs]|hf|ftlib)[-_][\w-]{12,512}"),
    ("key", r"\b(?:AKIA|ASIA|AIza)[\w-]{12,64}|(?<![\w-])eyJ[\w-]{8,4096}\.[\w-]{8,4096}\.[\w-]{0,4096}"),
    ("key", r"(?<![\w-])(?=[A-Za-z_-]{0,512}\d)(?=[\d_-]{0,512}[A-Za-z])[\w-]{32,}"),
    ("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"),
    ("card", r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)"),
    ("phone", r"\+\d[\d ().\-/]{6,18}\d"),
    ("phone", r"(?<![\w.+-])(?<!\d )\(?0\d{1,5}\)?[ /.\-]?\d[\d ./\-]{3,14}\d(?!\w)"),
    ("phone", r"(?<![\w.+-])\(?\d{3}\)?[ .\-]\d{3}[ .\-]\d{4}(?!\w)"),
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """One request, once it is over. `model` is what was asked for, `version` what answered; times are in seconds."""

    request_id: str
    key: str | None
    model: str
    version: str | None
    status: int
    stream: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float | None = None
    ttft_s: float | None = None
    total_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None  # the code of the error
    time: float = field(default_factory=time.time)

    def row(self) -> dict[str, Any]:
        values = {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {"time": values.pop("time"), **values, "model": self.model[:LONGEST_NAME]}


class JsonLines:
    """A file of JSON lines that never grows beyond `max_bytes`, with the `keep` files before it."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self.path, self.max_bytes, self.keep = path, max_bytes, keep
        self._lost = 0

    def append(self, row: dict[str, Any]) -> None:
        """Adds a line, or counts it as lost. Never raises."""
        try:
            self._write(json.dumps(row, default=str).encode() + b"\n")
        except Exception as error:  # whatever it is, the request has its answer already
            self._lost += 1
            if self._lost == 1:
                log.warning("%s cannot be written (%s): requests go on unlogged.", self.path, error)
            return
        if self._lost:
            log.warning("%s is written again; %d lines were lost.", self.path, self._lost)
            self._lost = 0

    def _write(self, line: bytes) -> None:
        while True:
            with self._opened() as file:
                size = os.fstat(file).st_size
                if not size or size + len(line) <= self.max_bytes:
                    self._add(file, size, line)
                    return
                self._rotate()

    def _add(self, file: int, size: int, line: bytes) -> None:
        """The whole line or nothing of it: a full disk takes a part, which the next line would continue."""
        written = 0
        try:
            written = os.write(file, line)
        finally:
            if written != len(line):
                os.ftruncate(file, size)
        if written != len(line):
            raise OSError("the disk is full")

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The file, locked. Another replica may have rotated it while we waited for the lock: then the new one."""
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                hold(file)
                if _is(self.path, file):
                    yield file
                    return
            finally:
                os.close(file)

    def _rotate(self) -> None:
        for number in range(self.keep, 0, -1):
            before = self.path if number == 1 else self._numbered(number - 1)
            if before.exists():
                os.replace(before, self._numbered(number))
        if not self.keep:
            self.path.unlink()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


class AccessLog:
    """A line for every request."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self._lines = JsonLines(path, max_bytes, keep)

    def write(self, access: Access) -> None:
        """Adds the request. Never raises."""
        self._lines.append(access.row())


class SampleLog:
    """A share of the requests, with their texts. `patterns` are regular expressions of what must not be kept, besides
    e-mail addresses, phone numbers, card and IBAN numbers and keys. Raises InputError for a share or a pattern that is
    none.
    """

    def __init__(
        self, path: Path, share: float, patterns: Sequence[str] = (), max_bytes: int = MAX_BYTES, keep: int = KEEP
    ) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"{share} is no share of the requests to sample: give a number from 0 to 1.")
        self.share = share
        self._redact = Redaction(patterns)
        self._lines = JsonLines(path, max_bytes, keep)

    def draws(self) -> bool:
        """Whether the next request is sampled: ask once, before its tokens are thrown away."""
        return random.random() < self.share

    def write(
        self,
        access: Access,
        prompt: str,
        answer: str,
        mean_logprob: float | None,
        turns: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Adds a sampled request. `prompt` is the text that the model read, template and all; `turns` are those of a
        chat, which can be trained on. Never raises."""
        try:
            texts: dict[str, Any] = {
                "prompt": self._redact(prompt),
                "answer": self._redact(answer),
                "mean_logprob": mean_logprob,
            }
            if turns is not None and all(map(_is_plain, turns)):
                texts["messages"] = [{"role": turn["role"], "content": self._redact(turn["content"])} for turn in turns]
        except Exception as error:  # never into the request path; and never unredacted
            texts = {"prompt": None, "answer": None, "mean_logprob": mean_logprob, "unredacted": str(error)}
        self._lines.append({**access.row(), **texts})


class Redaction:
    """Puts [email], [phone], [card], [iban] and [key] in the place of what looks like one, [redacted] for own
    patterns."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._rules = [(f"[{name}]", re.compile(pattern)) for name, pattern in REDACTED]
        for pattern in patterns:
            try:
                self._rules.append(("[redacted]", re.compile(pattern)))
            except re.error as error:
                raise InputError(f"redaction pattern {pattern!r} is no regular expression: {error}.") from None

    def __call__(self, text: str) -> str:
        """The text without them, at most `LONGEST` characters of it."""
        text = text[: 2 * LONGEST]  # cut once more below, so that nothing half cut here is kept
        for placeholder, pattern in self._rules:
            text = pattern.sub(placeholder, text)
        return text[:LONGEST]


def _is_plain(turn: Mapping[str, Any]) -> bool:
    """Whether a turn is a text of a role, whole in the log: no call of a tool, no picture, nothing cut."""
    content = turn.get("content")
    return set(turn) == {"role", "content"} and isinstance(content, str) and len(content) <= LONGEST


def _is(path: Path, file: int) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
