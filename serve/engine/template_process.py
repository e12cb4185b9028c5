"""The process in which chat templates run: `python -I template_process.py`, a line of JSON in, a line out.

A template is a program that came with the weights. Jinja's sandbox keeps it from the machine, but not from looping for
ever or from asking for all memory, and a thread cannot be ended. A process can: by its own alarm and by its limits.
Imports no more than Jinja, so that it is there in a tenth of a second.

    {"template": "...", "seconds": 5, "most": 4000000, "renders": [{"messages": [...], "tools": null, ...}, ...]}
    [{"text": "..."}, {"error": "..."}]
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY = 512 * 2**20  # bytes of address space beyond what Python and Jinja have
REASONING = ("reasoning_content", "thinking", "reasoning")  # the names that templates know a thought by
LONGEST = 300  # characters of an error


class Generation(Extension):
    """`{% generation %}`, with which transformers marks what an assistant says: written out as what is in it."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> Any:
        return caller()


class Dictionary:
    """`dict(...)` without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class Names(Namespace):
    """`namespace(...)`, which may not hold what begins with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        for name in dict(*rest, **kwargs):
            _check(name)
        Namespace.__init__(self, *rest, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name)
        super().__setitem__(name, value)


def _check(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"{name!r} begins with an underscore")


def _refuse(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
    """Without HTML's escapes, which Jinja's own filter writes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


@lru_cache(maxsize=64)
def compiled(template: str) -> Any:
    """As `apply_chat_template` compiles it: a test holds both to the same text."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = Dictionary()
    environment.globals["namespace"] = Names
    return environment.from_string(template)


def render(template: str, values: dict[str, Any], most: int) -> dict[str, str]:
    """The text, of at most `most` characters, or what the template has against it."""
    try:
        values["messages"] = [_thinking(message) for message in values["messages"]]
        return {"text": "".join(_bounded(compiled(template).generate(**values), most))}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as error:  # whatever it is, it is the template's, or the messages'
        return {"error": (str(error) or type(error).__name__)[:LONGEST]}


def _thinking(message: dict[str, Any]) -> dict[str, Any]:
    """A thought under each of the names that templates read, as transformers gives it."""
    thought = next((message[name] for name in REASONING if message.get(name) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}


def _bounded(pieces: Iterator[str], most: int) -> Iterator[str]:
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            raise jinja2.exceptions.TemplateError("it writes too much")
        yield piece


def answer(line: str) -> str:
    """One request's line as its answer's."""
    asked = json.loads(line)
    signal.setitimer(signal.ITIMER_REAL, asked["seconds"])  # its default action ends this process, whatever it does
    found = [render(asked["template"], values, asked["most"]) for values in asked["renders"]]
    signal.setitimer(signal.ITIMER_REAL, 0)
    return json.dumps(found)


def _limit() -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the endpoint, which ends its requests first
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit()
    for asked_line in sys.stdin:
        print(answer(asked_line), flush=True)
