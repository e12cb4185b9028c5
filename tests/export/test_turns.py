"""Chat templates said in Go's template language: what is written is what Jinja writes, or the template is refused."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import Environment

from ftlib.errors import InputError
from ftlib.export.turns import CHATS, Chat, Write, turns_of

EACH = "{% for m in messages %}"
CHATML = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
ASKS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
DEFAULT = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}"
GEMMA = (
    "{{ '<bos>' }}{% set first = messages[0].content + '\\n\\n' if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' + (first if loop.first else '') }}"
    "{{ m.content + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
MISTRAL = EACH + "{{ '[INST] ' + m.content + ' [/INST]' if m.role == 'user' else m.content + '</s>' }}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ nothing.at.all }}{% endif %}" + MISTRAL


def writer(template: str) -> Write:
    found = Environment().from_string(template)
    return lambda chat, asks: found.render(messages=list(chat), add_generation_prompt=asks)


@pytest.mark.parametrize(
    ("template", "opening", "expected"),
    [
        (EACH + CHATML + ASKS, "", {"system": ("<|im_start|>system\n", "<|im_end|>\n"), "default": None}),
        (
            DEFAULT + EACH + CHATML + ASKS,
            "",
            {"system": ("<|im_start|>system\n", "<|im_end|>\n"), "default": "Be kind."},
        ),
        (GEMMA, "<bos>", {"user": ("<start_of_turn>user\n", "<end_of_turn>\n"), "system": None, "joined": "\n\n"}),
        (NO_SYSTEM, "", {"user": ("[INST] ", " [/INST]"), "assistant": ("", "</s>"), "system": None, "joined": None}),
    ],
)
def test_turns_are_found_and_written_again(template: str, opening: str, expected: dict[str, Any]) -> None:
    write = writer(template)
    found = turns_of(write, opening, "it")
    assert {name: getattr(found, name) for name in expected} == expected
    longer: Chat = [*CHATS[1], {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Sure?"}]
    assert found.write(longer) == write(longer, True).removeprefix(opening)
    assert found.go().count("{{ end }}") == found.go().count("{{ if ") + found.go().count("{{ range ")
    assert found.asks == "" or found.go().endswith(found.asks)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}: {{ m.content }};{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}",
        "{{ messages[0].content }}",
    ],
)
def test_what_depends_on_the_place_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="in a way that ftlib cannot say"):
        turns_of(writer(template), "", "it")


def test_what_go_would_run_is_refused() -> None:
    with pytest.raises(InputError, match="which a Modelfile cannot hold"):
        turns_of(writer(EACH + "{{ '{{ .System }}' + m.content }}{% endfor %}"), "", "it")
