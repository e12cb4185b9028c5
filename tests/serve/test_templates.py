"""Chat templates: what transformers makes of them, and what a hostile one, or one that drops what was asked, is
told."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from ftlib.data.templates import TEMPLATES
from serve.engine.messages import Ask, Refused
from serve.engine.templates import Templates

from .conftest import TEMPLATE

USER = {"role": "user", "content": "größe \x00 </s> {{ 7 * 7 }}"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "b": [1, None, "ß"]}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"town": "Köln"}}}
CALLED = [
    USER,
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "12 °C", "tool_call_id": "c1", "name": "weather"},
]
THOUGHT = [USER, {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}, USER]
TOOLS = """{%- if tools %}{% for tool in tools %}{{ tool | tojson(indent=2) }}
{% endfor %}{% endif %}{{ bos_token }}
{%- set ns = namespace(last=-1) %}{% for message in messages %}{% set ns.last = loop.index0 %}{% endfor %}
{%- for message in messages %}{% if loop.index0 > 99 %}{% break %}{% endif %}
<|{{ message.role }}|>{% generation %}{{ message['content'] }}{% endgeneration %}
{%- if message.thinking is defined %}<think>{{ message.reasoning_content }}</think>{% endif %}
{%- for call in message.tool_calls or [] %}<call>{{ call.function.name }} {{ call.function.arguments | tojson }}</call>
{%- endfor %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{{ dict(a=ns.last).a }}{% endif %}"""
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates(processes=1, seconds=1)


def chat(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Ask:
    return Ask(SimpleNamespace(id="one@1"), messages=messages, tools=tools or [])  # type: ignore[arg-type]


def tokenizer(base: Path, template: Any) -> PreTrainedTokenizerFast:
    found = PreTrainedTokenizerFast.from_pretrained(base)
    found.chat_template = template
    return found


@pytest.mark.parametrize("template", [TEMPLATE, TOOLS, *TEMPLATES.values()])
@pytest.mark.parametrize("messages", [[USER], [USER, {"role": "assistant", "content": "ja"}, USER], THOUGHT, CALLED])
def test_it_is_what_transformers_writes(
    templates: Templates, base: Path, template: str, messages: list[dict[str, Any]]
) -> None:
    own = tokenizer(base, template)
    tools = [TOOL] if messages is CALLED else None
    if template not in (TOOLS, TEMPLATES["chatml"]) and messages in (THOUGHT, CALLED):
        with pytest.raises(Refused, match="does not write it"):
            templates.render(chat(messages, tools), own)
        return
    wanted = own.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    assert templates.render(chat(messages, tools), own) == wanted


DROPPED: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], str]] = {
    "tools": ([USER], [TOOL], "tools"),
    "earlier calls": (CALLED, [], "messages.2"),
    "calls alone": (CALLED[:2], [], "messages.1.tool_calls"),
    "a system prompt": ([{"role": "system", "content": "be brief"}, USER], [], "messages.0"),
    "a name": ([{**USER, "name": "Ada"}], [], "messages.0.name"),
    "thoughts": (THOUGHT, [], "messages.1.reasoning_content"),
}


@pytest.mark.parametrize(("messages", "tools", "param"), DROPPED.values(), ids=DROPPED)
def test_what_a_template_drops_is_refused_by_name(
    templates: Templates, base: Path, messages: list[dict[str, Any]], tools: list[dict[str, Any]], param: str
) -> None:
    plain = "{% for m in messages if m.role in ('user', 'assistant') %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    with pytest.raises(Refused) as caught:
        templates.render(chat(messages, tools), tokenizer(base, plain))
    assert caught.value.refusal.param == param
    assert caught.value.refusal.status == 400


def test_of_several_templates_the_one_for_tools_is_taken(templates: Templates, base: Path) -> None:
    several = tokenizer(base, {"default": TEMPLATE, "tool_use": TOOLS})
    assert "weather" in templates.render(chat([USER], [TOOL]), several)
    assert templates.render(chat([USER]), several) == f"<|user|>{USER['content']}\n<|assistant|>"


HOSTILE = {
    "memory": "{{ 'x' * 10**9 }}",
    "output": "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "the inside": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__.os.environ }}",
    "a hidden name": "{% set x = namespace(__class__=1) %}{{ x }}",
    "no template": "{% if %}",
    "what is not there": "{{ messages[0].no.thing }}",
    "an escape": "{{ raise_exception('\x1b[2J' * 500) }}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_a_refusal(templates: Templates, base: Path, template: str) -> None:
    began = time.monotonic()
    with pytest.raises(Refused, match="the chat template of one@1 says: .") as caught:
        templates.render(chat([USER]), tokenizer(base, template))
    assert caught.value.refusal.status == 400
    assert len(caught.value.refusal.message) < 500
    assert "\x1b" not in caught.value.refusal.message
    assert time.monotonic() - began < 60


def test_a_template_without_an_end_is_ended_and_then_not_tried(base: Path) -> None:
    templates, endless, fine = Templates(processes=1, seconds=1), tokenizer(base, LOOP), tokenizer(base, TEMPLATE)
    took = []
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(Refused, match="does not end within 1 s") as caught:
            templates.render(chat([USER]), endless)
        took.append(time.monotonic() - began)
        assert caught.value.refusal.status == 422
        assert templates.render(chat([USER]), fine)  # in a new process
    assert took[0] > 0.9
    assert took[1] < 0.9  # not tried


def test_a_request_without_time_says_nothing_of_the_template(base: Path) -> None:
    templates, endless = Templates(processes=1, seconds=1), tokenizer(base, LOOP + " ")
    for seconds in (-1, 0.2):
        with pytest.raises(Refused) as caught:
            templates.render(chat([USER]), endless, until=time.monotonic() + seconds)
        assert caught.value.refusal.status == 408
    with pytest.raises(Refused, match="does not end"):
        templates.render(chat([USER]), endless)


def test_a_killed_process_is_replaced(base: Path) -> None:
    templates, fine = Templates(processes=1), tokenizer(base, TEMPLATE)
    templates.render(chat([USER]), fine)
    process = templates._idle.queue[0]
    assert process._child is not None
    process._child.kill()
    process._child.wait()
    assert templates.render(chat([USER]), fine)
    assert "FTLIB_HOME" not in Path(f"/proc/{process._child.pid}/environ").read_text()  # nor any key
