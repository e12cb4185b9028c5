"""A chat as its version's template writes it: in a process of its own that can be ended, and checked for what was
dropped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import queue
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from serve.engine.messages import Ask, Refusal, Refused, printable

PROGRAM = Path(__file__).with_name("template_process.py")
PROCESSES = 2  # of one engine: a template that does not end must not keep the others waiting
SECONDS = 5.0  # of one request's renders; real ones take a millisecond
MOST = 4_000_000  # characters: bodies are smaller, and no context is as long
LONGEST = 2**20  # characters of a template
LITTLE = 100_000  # characters of a chat that any template writes in time
QUARANTINE = 60.0  # seconds in which a template that did not end is not tried again
LATE = Refusal(
    "The answer was not begun in time: ask for less, or for more time.", None, "deadline_exceeded", 408, "timeout_error"
)
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
PLAIN = {"user", "assistant"}  # roles that every template writes


class TooLong(Exception):
    """The template did not end."""


class Process:
    """One child. Not safe between threads: whoever has it has taken it out of the queue."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, asked: dict[str, Any], seconds: float) -> list[dict[str, str]]:
        """Raises TooLong when no answer is there after `seconds`."""
        line = json.dumps({**asked, "seconds": seconds}).encode() + b"\n"
        child = self._running()
        try:
            until = time.monotonic() + seconds + 0.5  # its own alarm comes first
            _write(child, line, until)
            return list(json.loads(_read_line(child, until)))
        except (OSError, TooLong, ValueError):
            self.end()
            raise TooLong from None

    def end(self) -> None:
        """It may be doing anything, so it is killed."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            told = {name: os.environ[name] for name in ("TZ", "LD_LIBRARY_PATH") if name in os.environ}  # no secrets
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=told,
                bufsize=0,
            )
            assert self._child.stdin is not None
            os.set_blocking(self._child.stdin.fileno(), False)
        return self._child


class Templates:
    """Renders in a few processes, which are started when they are needed. Used from several threads."""

    def __init__(self, processes: int = PROCESSES, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._idle: queue.LifoQueue[Process] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(Process())
        self._endless: dict[str, float] = {}  # by digest: until when it is not tried

    def render(self, ask: Ask, tokenizer: Any, until: float = math.inf) -> str:
        """The chat as one text. `until` is a time of `time.monotonic`.

        Raises Refused where there is no template, where it has something against the messages, where it does not end,
        and where it would drop a part of what was asked.
        """
        tools = ask.tools or None
        template = _template(ask, tokenizer, tools)
        renders = _renders(ask, tools, {key: str(value) for key, value in tokenizer.special_tokens_map.items()})
        _check_thoughts(ask, template)
        said, *others = self._rendered(ask, template, list(renders.values()), until)
        if "error" in said:
            message = f"messages: the chat template of {ask.writer} says: {printable(said['error'], 300)}"
            raise Refused(Refusal(message, "messages"))
        for part, other in zip(list(renders)[1:], others, strict=True):
            if other.get("text") == said["text"]:
                raise _dropped(ask, part)
        return said["text"]

    def _rendered(self, ask: Ask, template: str, renders: list[dict[str, Any]], until: float) -> list[dict[str, str]]:
        digest = hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
        if self._endless.get(digest, 0) > time.monotonic():
            raise self._does_not_end(ask)
        try:
            process = self._idle.get(timeout=max(min(until - time.monotonic(), 1e6), 0))
        except queue.Empty:
            raise Refused(LATE) from None
        seconds = min(self._seconds, until - time.monotonic())
        try:
            if seconds <= 0:
                raise Refused(LATE)
            return process.ask({"template": template, "most": MOST, "renders": renders}, seconds)
        except TooLong:
            if seconds < self._seconds:  # the request had no more time: that says nothing of the template
                raise Refused(LATE) from None
            if sum(len(message["content"]) for message in ask.messages or ()) < LITTLE:  # nor does a very long chat
                self._endless[digest] = time.monotonic() + QUARANTINE
            raise self._does_not_end(ask) from None
        finally:
            self._idle.put(process)

    def _does_not_end(self, ask: Ask) -> Refused:
        seconds = f"{self._seconds:g} s"
        message = f"The chat template of {ask.writer} does not end within {seconds}: promote it with another."
        return Refused(Refusal(message, "model", "template_failed", 422))


def _template(ask: Ask, tokenizer: Any, tools: list[dict[str, Any]] | None) -> str:
    if tokenizer.chat_template is None:
        raise Refused(Refusal(f"{ask.writer} has no chat template: use /v1/completions.", "messages"))
    try:
        template = str(tokenizer.get_chat_template(None, tools))
    except ValueError as error:  # several, and none of them is the default
        raise Refused(Refusal(f"{ask.writer}: {error}", "model", "template_failed", 422)) from None
    if len(template) > LONGEST:
        message = f"The chat template of {ask.writer} has more than {LONGEST} characters: promote it with another."
        raise Refused(Refusal(message, "model", "template_failed", 422))
    return template


def _check_thoughts(ask: Ask, template: str) -> None:
    """Templates leave out the thoughts of earlier turns by design; one that knows of none would leave out all."""
    for number, message in enumerate(ask.messages or ()):
        if "reasoning_content" in message and not any(name in template for name in THOUGHTS):
            raise _dropped(ask, f"messages.{number}.reasoning_content")


def _dropped(ask: Ask, part: str) -> Refused:
    message = f"{part}: the chat template of {ask.writer} does not write it: leave it out."
    return Refused(Refusal(message, part, "unsupported_value"))


def _renders(ask: Ask, tools: Any, special: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What was asked first; then, by the name of each part that a template may drop, the same without that part. Where
    both come out alike, the template dropped it."""
    messages = ask.messages or []

    def with_(messages: list[dict[str, Any]], tools: Any = tools) -> dict[str, Any]:
        rest = {"tools": tools, "documents": None, "add_generation_prompt": True}
        return {**special, **rest, "messages": messages}

    found = {"": with_(messages)}
    if tools:
        found["tools"] = with_(messages, None)
    for role in dict.fromkeys(message["role"] for message in messages):
        if role not in PLAIN:
            other = [
                {**message, "content": f"{message['content']}."} if message["role"] == role else message
                for message in messages
            ]
            found[f"messages.{_first(messages, lambda message, role=role: message['role'] == role)}"] = with_(other)
    for name in ("tool_calls", "name"):
        if any(name in message and not (name == "name" and message["role"] == "tool") for message in messages):
            at = _first(messages, lambda message, name=name: name in message)
            found[f"messages.{at}.{name}"] = with_(
                [{k: v for k, v in message.items() if k != name} for message in messages]
            )
    return found


def _first(messages: list[dict[str, Any]], holds: Any) -> int:
    return next(number for number, message in enumerate(messages) if holds(message))


def _write(child: subprocess.Popen[bytes], line: bytes, until: float) -> None:
    assert child.stdin is not None
    left = memoryview(line)
    while left:
        _wait(child.stdin.fileno(), select.POLLOUT, until)
        left = left[os.write(child.stdin.fileno(), left) :]


def _read_line(child: subprocess.Popen[bytes], until: float) -> bytes:
    assert child.stdout is not None
    parts: list[bytes] = []
    while not (parts and parts[-1].endswith(b"\n")):
        _wait(child.stdout.fileno(), select.POLLIN, until)
        parts.append(os.read(child.stdout.fileno(), 1 << 20))
        if not parts[-1]:
            raise TooLong
    return b"".join(parts)


def _wait(file: int, event: int, until: float) -> None:
    """Until the pipe is ready. `poll` has no bound on the number of a file, as `select` has."""
    ready = select.poll()
    ready.register(file, event)
    if not ready.poll(max(until - time.monotonic(), 0) * 1000):
        raise TooLong
