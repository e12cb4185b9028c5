"""Chat templates: the tokenizer's own, or one of the two here, as Jinja text in the form that transformers takes.

In both, a conversation with the generation header is an exact text prefix of the same conversation with its answer,
and every assistant turn ends with the end-of-sequence token, at which generation stops.
"""

from __future__ import annotations

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ftlib.config.data import DataSection
from ftlib.errors import DataError

# How both begin. A system turn at the start takes the place of the preamble. It speaks of an input where the first
# instruction has one under its heading (data.format: stanford).
_PREAMBLE = r"""
{%- if messages[0]['role'] != 'system' -%}
{{- '<begins>Below is an instruction that describes a task' -}}
{%- if '\n\n### Input:\n' in messages[0]['content'] -%}
{{- ', paired with an input that provides further context' -}}
{%- endif -%}
{{- '. Write a response that appropriately completes the request.' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
""".strip()

# Taori et al. 2023, Stanford Alpaca.
ALPACA = (
    _PREAMBLE.replace("<begins>", "")
    + r"""
{{- '\n\n### Instruction:\n' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{{- '\n\n### Response:\n' + message['content'] + eos_token -}}
{%- else -%}
{{- ('' if loop.first else '\n\n') + message['content'] -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '\n\n### Response:\n' -}}
{%- endif -%}"""
)

# The same texts between USER: and ASSISTANT:, as Axolotl writes them (its prompt style "chat").
ALPACA_CHAT = (
    _PREAMBLE.replace("<begins>", "SYSTEM: ")
    + r"""
{{- '\nUSER: ' + message['content'].replace('\n\n### Input:\n', '\n') -}}
{%- elif message['role'] == 'assistant' -%}
{{- '\nASSISTANT:' + message['content'] + eos_token -}}
{%- else -%}
{{- ('SYSTEM: ' if loop.first else '\n') + message['content'] -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '\nASSISTANT:' -}}
{%- endif -%}"""
)

# OpenAI's ChatML. `<|im_end|>` may be ordinary text to the tokenizer, so the token that ends a sequence follows it.
# Tools, calls and thoughts are written as Nous Research's Hermes and Qwen write them.
CHATML = r"""
{%- set with_system = messages and messages[0]['role'] == 'system' -%}
{%- if tools -%}
{{- '<|im_start|>system\n' + (messages[0]['content'] + '\n\n' if with_system else '') -}}
{{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' -}}
{{- 'You are provided with function signatures within <tools></tools> XML tags:\n<tools>' -}}
{%- for tool in tools -%}
{{- '\n' + (tool | tojson) -}}
{%- endfor -%}
{{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments within ' -}}
{{- '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n' -}}
{{- '</tool_call><|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (tools and with_system and loop.first) -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message.reasoning_content -%}
{{- '<think>\n' + message.reasoning_content + '\n</think>\n\n' -}}
{%- endif -%}
{{- message['content'] or '' -}}
{%- for call in message.tool_calls or [] -%}
{{- '\n' if message['content'] or not loop.first -}}
{{- '<tool_call>\n{"name": ' + (call.function.name | tojson) + ', "arguments": ' -}}
{{- (call.function.arguments if call.function.arguments is string else call.function.arguments | tojson) -}}
{{- '}\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>' -}}
{%- if message['role'] == 'assistant' and eos_token != '<|im_end|>' -%}
{{- eos_token -}}
{%- endif -%}
{{- '\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}
""".strip()

TEMPLATES = {"alpaca": ALPACA, "alpaca_chat": ALPACA_CHAT, "chatml": CHATML}
# Published with models: `chat_templates/NAME.jinja`, and the token that ends a turn there. The other templates end one
# with whatever token ends a text for the tokenizer.
STOPS = {
    "llama3": "<|eot_id|>",
    "qwen": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "phi": "<|im_end|>",
    "mistral": None,
}

# tokenizer -> (the template it came with, the one we put in its place), so that preparing twice sees the same tokenizer
_replaced: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()


def template_for(data: DataSection, tokenizer: Any, multi_turn: bool, tools: bool = False) -> str | None:
    """The text of the template that `data.template` means for this tokenizer; None for `template: none`.

    `auto` is the tokenizer's own (the one for tools, where it has one and rows have `tools`), else alpaca, else
    (`multi_turn`) chatml. Raises DataError for `tokenizer` when it has none.
    """
    own = own_template(tokenizer, tools)
    name = data.template
    if name == "none":
        return None
    if name == "tokenizer" and own is None:
        raise DataError("data.template: 'tokenizer' needs a tokenizer with a chat template, and this one has none: "
                        "choose auto, alpaca or chatml.")  # fmt: skip
    if own is not None and name in ("auto", "tokenizer"):
        return own
    if name == "auto":
        name = "chatml" if multi_turn else "alpaca"
    text = _published(name, tokenizer) if name in STOPS else TEMPLATES[name]
    # A chat template is tokenized as it stands, so it must write the bos token that this tokenizer would add.
    return ("{{- bos_token -}}\n" if adds_bos(tokenizer) and "bos_token" not in text else "") + text


def _published(name: str, tokenizer: Any) -> str:
    """The text of a template that models are published with. Raises DataError where this tokenizer lacks the tokens
    that it needs: an answer would have no end at which generation stops."""
    text, stop = _read(name), STOPS[name]
    if "bos_token" in text and tokenizer.bos_token is None:
        raise DataError(
            f"data.template: '{name}' begins with a bos token, and this tokenizer has none: set "
            "model.special_tokens.bos_token, or choose chatml."
        )
    if stop is not None and tokenizer.eos_token != stop:
        there = stop in tokenizer.get_vocab()
        way = f"set model.special_tokens.eos_token: '{stop}'" if there else "choose chatml or alpaca"
        raise DataError(
            f"data.template: '{name}' ends an answer with {stop}, "
            + (
                f"and this tokenizer ends one with {tokenizer.eos_token}"
                if there
                else "which this tokenizer does not have"
            )
            + f": {way}."
        )
    return text


@cache
def _read(name: str) -> str:
    return (Path(__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def template_name(template: str | None, tokenizer: Any) -> str:
    """What to call a template in a report."""
    if template is None:
        return "none"
    if template in (own_template(tokenizer), own_template(tokenizer, tools=True)):
        return "tokenizer"
    known = TEMPLATES | {name: _read(name) for name in STOPS}
    return next(name for name, text in known.items() if template.endswith(text))


def own_template(tokenizer: Any, tools: bool = False) -> str | None:
    """The chat template that the tokenizer came with, or None. `tools`: of several, rather the one for tools."""
    current = tokenizer.chat_template
    own, ours = _replaced.get(tokenizer, (None, None))
    if ours is not None and current == ours:
        current = own
    if isinstance(current, dict):  # several, by purpose
        current = current.get("tool_use" if tools and "tool_use" in current else "default")
    return current or None


def use_template(tokenizer: Any, template: str) -> None:
    """Makes `template` the tokenizer's chat template, to be saved with it and served with it."""
    own, ours = _replaced.get(tokenizer, (None, None))
    if ours is None or tokenizer.chat_template != ours:
        own = tokenizer.chat_template
    _replaced[tokenizer] = (own, template)
    tokenizer.chat_template = template


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer begins a text with its bos token of itself."""
    ids: list[int] = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def without_opening(text: str, tokenizer: Any) -> str:
    """A text that the tokenizer is going to open (with a bos or cls token), without the same token at its start."""
    for token in (tokenizer.bos_token, tokenizer.cls_token):
        if is_opened(text, token) and tokenizer("a")["input_ids"][:1] == [tokenizer.convert_tokens_to_ids(token)]:
            text = unopened(text, token)
    return text


def is_opened(text: str, token: str | None) -> bool:
    """Whether a text begins with a token; line ends and spaces before it are no part of the text."""
    return bool(token) and text.lstrip().startswith(str(token))


def unopened(text: str, token: str) -> str:
    """A text without a token at its start, however often it stands there."""
    while is_opened(text, token):
        text = text.lstrip().removeprefix(token)
    return text


def stop_tokens(tokenizer: Any) -> set[str]:
    """The tokens at which an answer ends when the model is served: its eos, and those of its generation config."""
    ids = {tokenizer.eos_token_id}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        config = json.loads((Path(tokenizer.name_or_path) / "generation_config.json").read_text(encoding="utf-8"))
        listed = config.get("eos_token_id")
        ids |= set(listed if isinstance(listed, list) else [listed])
    told = tokenizer.convert_ids_to_tokens([token_id for token_id in ids if isinstance(token_id, int)])
    return {token for token in told if token is not None}  # an id beyond the vocabulary is no token
