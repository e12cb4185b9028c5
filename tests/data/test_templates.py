"""Which template is taken, and that a generation prompt is an exact prefix of the finished turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftlib.data.formats import BadRow, normalize
from ftlib.data.render import render
from ftlib.data.templates import (
    ALPACA,
    ALPACA_CHAT,
    CHATML,
    STOPS,
    own_template,
    template_for,
    template_name,
    use_template,
)
from ftlib.errors import DataError

from .conftest import make_tokenizer, section

# How Qwen3 writes thinking: an empty thought before the last answer only, and none in the turns before it.
QWEN3 = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' -}}"
    "{%- if m.role == 'assistant' -%}"
    "{%- if loop.last -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}"
    "{{- m.content.split('</think>')[-1].lstrip('\\n') -}}"
    "{%- else -%}{{- m.content -}}{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
REWRITING = "{{- messages | length -}}{%- for m in messages -%}{{- m.content -}}{%- endfor -%}"
REFUSING = "{{- raise_exception('no system turns here') -}}"

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "No."},
]


@pytest.mark.parametrize(
    ("asked", "own", "multi_turn", "template"),
    [
        ("auto", None, False, ALPACA),
        ("auto", None, True, CHATML),
        ("auto", QWEN3, True, QWEN3),
        ("auto", {"default": QWEN3, "tool_use": "x"}, False, QWEN3),
        ("tokenizer", QWEN3, False, QWEN3),
        ("alpaca", QWEN3, True, ALPACA),
        ("chatml", None, False, CHATML),
        ("none", QWEN3, False, None),
    ],
)
def test_which_template(tokenizer, asked, own, multi_turn, template) -> None:
    tokenizer.chat_template = own
    assert template_for(section("x", template=asked), tokenizer, multi_turn) == template


def test_a_tokenizer_without_a_template_cannot_be_asked_for_it(tokenizer) -> None:
    with pytest.raises(DataError, match=r"data.template: 'tokenizer' needs .* choose auto, alpaca or chatml"):
        template_for(section("x", template="tokenizer"), tokenizer, multi_turn=False)


@pytest.mark.parametrize(("more", "input_", "line"), [(", paired with an input that provides further context", "1, 2",
                                                      "\n1, 2"), ("", "", "")])  # fmt: skip
def test_alpaca_chat_is_axolotls(more: str, input_: str, line: str, tokenizer) -> None:
    record = normalize("stanford", {"instruction": "Add.", "input": input_, "output": "3"})
    passage = render(record, tokenizer, ALPACA_CHAT)
    assert passage.text == (
        f"SYSTEM: Below is an instruction that describes a task{more}. Write a response that appropriately completes "
        f"the request.\nUSER: Add.{line}\nASSISTANT:3{tokenizer.eos_token}"
    )
    assert [passage.text[start:end] for start, end in passage.spans] == [f"3{tokenizer.eos_token}"]


def test_alpacas_prompt_is_stanfords(tokenizer) -> None:
    """Taori et al. 2023: with an input the preamble is another one, and the input stands under its own heading."""
    record = normalize("stanford", {"instruction": "Add.", "input": "1, 2", "output": "3"})
    passage = render(record, tokenizer, ALPACA)
    assert passage.text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n"
        f"### Response:\n3{tokenizer.eos_token}"
    )
    assert [passage.text[start:end] for start, end in passage.spans] == [f"3{tokenizer.eos_token}"]


def test_what_we_put_on_a_tokenizer_is_not_taken_for_its_own(tokenizer) -> None:
    use_template(tokenizer, ALPACA)
    use_template(tokenizer, CHATML)
    assert tokenizer.chat_template == CHATML
    assert own_template(tokenizer) is None
    tokenizer.chat_template = QWEN3
    assert own_template(tokenizer) == QWEN3


def test_alpaca_as_it_is_known(tokenizer) -> None:
    passage = render({"messages": TURNS[1:3], "trained_from": 0}, tokenizer, ALPACA)
    assert passage.text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nOne?\n\n### Response:\nYes.</s>"
    )
    whole = render({"messages": TURNS, "trained_from": 0}, tokenizer, ALPACA)
    assert whole.text == (
        "Be brief.\n\n### Instruction:\nOne?\n\n### Response:\nYes.</s>"
        "\n\n### Instruction:\nTwo?\n\n### Response:\nNo.</s>"
    )


@pytest.mark.parametrize(
    ("template", "bos", "trained"),
    [
        (ALPACA, False, ["Yes.</s>", "No.</s>"]),
        (CHATML, False, ["Yes.<|im_end|></s>\n", "No.<|im_end|></s>\n"]),
        (QWEN3, False, ["Yes.<|im_end|>\n", "<think>\n\n</think>\n\nNo.<|im_end|>\n"]),
    ],
)
def test_spans_are_the_assistants_turns(tokenizer, template, bos, trained) -> None:
    passage = render({"messages": TURNS, "trained_from": 0}, tokenizer, template)
    assert [passage.text[start:end] for start, end in passage.spans] == trained
    for index in (2, 4):
        asked = tokenizer.apply_chat_template(
            TURNS[:index], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert passage.text.startswith(asked)
    last = render({"messages": TURNS, "trained_from": 4}, tokenizer, template)
    assert last.spans == passage.spans[1:]


def test_chatml_ends_with_im_end_alone_where_that_is_eos(tokenizer) -> None:
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    passage = render({"messages": TURNS[1:3], "trained_from": 0}, tokenizer, CHATML)
    assert passage.text.endswith("<|im_start|>assistant\nYes.<|im_end|>\n")


def test_a_template_writes_the_bos_that_the_tokenizer_would_add() -> None:
    tokenizer = make_tokenizer(bos=True)
    template = template_for(section("x"), tokenizer, multi_turn=False)
    assert render({"messages": TURNS, "trained_from": 0}, tokenizer, template).text.startswith("<s>Be brief.")


@pytest.mark.parametrize(
    ("template", "reason"),
    [(REWRITING, "before turn 2 differently"), (REFUSING, "does not take it: no system turns here")],
)
def test_a_template_that_cannot_be_used_makes_a_bad_row(tokenizer, template, reason) -> None:
    with pytest.raises(BadRow, match=reason):
        render({"messages": TURNS, "trained_from": 0}, tokenizer, template)


def test_none_is_prompt_completion_and_eos(tokenizer) -> None:
    passage = render({"messages": TURNS[1:3], "trained_from": 0}, tokenizer, None)
    assert (passage.text, passage.spans) == ("One?Yes.</s>", ((4, 12),))
    with pytest.raises(BadRow, match="template: none takes one prompt"):
        render({"messages": TURNS, "trained_from": 0}, tokenizer, None)


OF_TRL = {"llama3": "llama3", "qwen": "qwen2_5", "qwen3": "qwen3", "gemma": "gemma", "gemma3": "gemma3"}


def named(name: str):
    """A tokenizer that has the template's tokens, and a two-turn conversation as the template takes it."""
    stop = STOPS[name] or "</s>"
    tokenizer = make_tokenizer(extra=(stop,) if STOPS[name] else ())
    tokenizer.eos_token = stop
    return tokenizer, stop, TURNS[1:] if name in ("gemma", "mistral") else TURNS


@pytest.mark.parametrize("name", STOPS)
def test_a_published_template_trains_answers_and_their_stop(name) -> None:
    tokenizer, stop, turns = named(name)
    template = template_for(section("x", template=name), tokenizer, multi_turn=True)
    assert template_name(template, tokenizer) == name
    for conversation in (turns, turns[:-2]):
        passage = render({"messages": conversation, "trained_from": 0}, tokenizer, template)
        trained = [passage.text[start:end].rstrip("\n") for start, end in passage.spans]
        said = [turn["content"] for turn in conversation if turn["role"] == "assistant"]
        assert len(trained) == len(said)
        assert all(answer in text and text.endswith(stop) for text, answer in zip(trained, said, strict=True))


@pytest.mark.parametrize("name", OF_TRL)
def test_published_templates_are_those_that_trl_knows(name) -> None:
    import trl

    published = Path(trl.__file__).parent / "chat_templates" / f"{OF_TRL[name]}.jinja"
    tokenizer, _, _ = named(name)
    assert template_for(section("x", template=name), tokenizer, False) == published.read_text()


def test_mistrals_is_written_as_published(tokenizer) -> None:
    template = template_for(section("x", template="mistral"), tokenizer, True)
    text = render({"messages": TURNS[1:], "trained_from": 0}, tokenizer, template).text
    assert text == "<s>[INST] One? [/INST]Yes.</s>[INST] Two? [/INST]No.</s>"


def test_a_template_whose_tokens_are_missing_is_refused_by_name(tokenizer) -> None:
    with pytest.raises(DataError, match="'qwen' ends an answer with <|im_end|>, which this tokenizer does not have"):
        template_for(section("x", template="qwen"), tokenizer, False)
    other = make_tokenizer(extra=("<|im_end|>",))
    with pytest.raises(DataError, match=r"and this tokenizer ends one with </s>: set model.special_tokens.eos_token"):
        template_for(section("x", template="qwen"), other, False)
    tokenizer.bos_token = None
    with pytest.raises(DataError, match="'mistral' begins with a bos token"):
        template_for(section("x", template="mistral"), tokenizer, False)
