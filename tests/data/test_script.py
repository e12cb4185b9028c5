"""Where answers stand under templates that write earlier turns anew, and what a template may not leave out."""

from __future__ import annotations

from typing import Any

import pytest

from ftlib.data import prepare
from ftlib.data.fields import BadRow
from ftlib.data.render import render
from ftlib.data.script import variables
from ftlib.data.templates import ALPACA, CHATML, without_opening
from ftlib.data.tokenize import tokenize

from .conftest import make_tokenizer, section

# As Qwen3's: thoughts are written after the last question alone, and tools, calls and results are.
QWEN3 = (
    "{%- set ns = namespace(last=0) -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- set ns.last = loop.index0 -%}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if tools -%}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- for m in messages -%}{%- set role = 'user' if m.role == 'tool' else m.role -%}"
    "{{- '<|im_start|>' + role + '\\n' -}}{%- set content = m.content -%}"
    "{%- set thought = m.reasoning_content or '' -%}"
    "{%- if m.role == 'assistant' -%}"
    "{%- if '</think>' in content -%}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}"
    "{%- if loop.index0 > ns.last and (loop.last or thought) -%}"
    "{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}"
    "{%- else -%}{{- content -}}{%- endif -%}"
    "{%- for call in m.tool_calls or [] -%}{{- ('\\n' if content or not loop.first else '') + '<tool_call>\\n' -}}"
    "{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson -}}{{- '\\n</tool_call>' -}}"
    "{%- endfor -%}{%- else -%}{{- content -}}{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
# As Mistral's: the tools stand before the last question, and no header before an answer.
MISTRAL = (
    "{%- for m in messages -%}{%- if m.role == 'user' -%}"
    "{%- if tools and messages[loop.index0 + 1:] | selectattr('role', 'equalto', 'user') | list | length == 0 -%}"
    "{{- '[TOOLS]' + (tools | tojson) + '[/TOOLS]' -}}{%- endif -%}{{- '[INST] ' + m.content + '[/INST]' -}}"
    "{%- else -%}{{- ' ' + m.content + eos_token -}}{%- endif -%}{%- endfor -%}"
)
# As Phi-3's: a token after the last turn that no other turn has.
PHI3 = (
    "{%- for m in messages -%}{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- else -%}{{- eos_token -}}{%- endif -%}"
)
GENERATION = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DEAF = CHATML.split("{%- set with_system")[0] + (
    "{%- for m in messages -%}"
    "{%- if m.role != 'system' -%}{{- '<' + m.role + '>' + m.content + eos_token -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **rest: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **rest}


def trained(template: str, *turns: dict[str, Any], **rest: Any) -> list[str]:
    passage = render({"messages": list(turns), "trained_from": 0, **rest}, make_tokenizer(extra=SPECIAL), template)
    return [passage.text[start:end] for start, end in passage.spans]


@pytest.mark.parametrize("answer", ["d", "<", "im_end", "assistant", "|", "start|>", "n", "pick"])
def test_an_answer_that_is_a_part_of_a_marker_is_found(answer) -> None:
    turns = (user("pick a-d"), assistant(answer), user("pick e-h"), assistant(answer))
    assert trained(QWEN3, *turns) == [f"{answer}<|im_end|>\n", f"<think>\n\n</think>\n\n{answer}<|im_end|>\n"]
    assert trained(PHI3, *turns) == [f"{answer}<|end|>\n", f"{answer}<|end|>\n</s>"]


def test_thoughts_go_from_earlier_turns_and_stay_in_the_last() -> None:
    turns = (user("a"), assistant("<think>\nhm\n</think>\n\n4"), user("b"), assistant("<think>\nso\n</think>\n\n6"))
    assert trained(QWEN3, *turns) == ["4<|im_end|>\n", "<think>\nso\n</think>\n\n6<|im_end|>\n"]
    turns = (user("a"), assistant("4", reasoning_content="hm"), user("b"), assistant("6", reasoning_content="so"))
    assert trained(QWEN3, *turns) == ["4<|im_end|>\n", "<think>\nso\n</think>\n\n6<|im_end|>\n"]


def test_an_earlier_turn_that_is_a_thought_alone_is_a_bad_row() -> None:
    thought = assistant("<think>\nhm\n</think>")
    with pytest.raises(BadRow, match="writes nothing of turn 1: it takes the thoughts out"):
        trained(QWEN3, user("hm"), thought, user("and?"), assistant("6"))
    assert trained(QWEN3, user("hm"), thought, user("and?"), assistant("6"), silent=[1])[0].endswith("6<|im_end|>\n")
    assert trained(QWEN3, user("hm"), thought) == ["<think>\nhm\n</think>\n\n<|im_end|>\n"]


def test_calls_of_tools_are_learned_and_their_results_are_not() -> None:
    turns = [user("a"), assistant("", tool_calls=[CALL], reasoning_content="look"), {"role": "tool", "content": "4 C"},
             assistant("4 degrees.")]  # fmt: skip
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    last = "<think>\n\n</think>\n\n4 degrees.<|im_end|>\n"
    given = {"given": {"tools": [TOOL]}}
    assert trained(QWEN3, *turns, **given) == [f"<think>\nlook\n</think>\n\n{call}<|im_end|>\n", last]
    followed = trained(QWEN3, *turns, user("b"), assistant("5"), **given)
    assert followed == [f"{call}<|im_end|>\n", "4 degrees.<|im_end|>\n", "<think>\n\n</think>\n\n5<|im_end|>\n"]
    ours = trained(CHATML, *turns, **given)
    assert ours == [f"<think>\nlook\n</think>\n\n{call}<|im_end|></s>\n", "4 degrees.<|im_end|></s>\n"]


def test_chatml_writes_a_system_text_and_tools_into_one_turn() -> None:
    turns = [{"role": "system", "content": "Be brief."}, user("a"), assistant("b")]
    record = {"messages": turns, "trained_from": 0}
    tokenizer = make_tokenizer()
    with_tools = render({**record, "given": {"tools": [TOOL]}}, tokenizer, CHATML).text
    assert with_tools.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n")
    assert with_tools.count("system\n") == 1
    assert '"name": "weather"' in with_tools
    assert render(record, tokenizer, CHATML).text.startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user"
    )


def test_what_moves_before_an_answer_does_not_hide_it() -> None:
    turns = (user("a"), assistant("one"), user("b"), assistant("two"))
    assert trained(MISTRAL, *turns, given={"tools": [TOOL]}) == ["one</s>", " two</s>"]
    assert trained(MISTRAL, *turns) == [" one</s>", " two</s>"]


def test_the_header_of_another_answer_is_not_taken_for_this_ones() -> None:
    """As Qwen3-Thinking's: what generation gets opens a thought, which not every turn of a conversation has."""
    template = (
        "{%- for m in messages -%}{{- '<' + m.role + '>' -}}"
        "{%- if m.role == 'assistant' and loop.index0 == 1 -%}{{- '<think>hm</think>' -}}{%- endif -%}"
        "{{- m.content + eos_token -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<assistant><think>' -}}{%- endif -%}"
    )
    turns = (user("a"), assistant("one"), user("b"), assistant("two"))
    assert trained(template, *turns) == ["hm</think>one</s>", "two</s>"]


def test_a_template_that_tells_its_answers_is_believed() -> None:
    assert trained(GENERATION, user("a"), assistant("one"), user("b"), assistant("two")) == ["one</s>", "two</s>"]
    assert trained(GENERATION, user("a"), assistant("one"), user("b"), assistant("two"), silent=[1]) == ["two</s>"]


def test_arguments_are_texts_for_a_template_that_writes_them_as_they_are() -> None:
    for how in ("call.function.arguments", "'' + call.function.arguments", "call.function.arguments | string"):
        template = (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
            "{% for call in m.tool_calls or [] %}{{ call.function.name }}"
            "({{ HOW }}){% endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
        ).replace("HOW", how)
        assert trained(template, user("a"), assistant("", tool_calls=[CALL])) == ['weather({"city": "Oslo"})</s>']


@pytest.mark.parametrize(
    ("template", "turns", "rest", "reason"),
    [
        (DEAF, [{"role": "system", "content": "s"}, user("a"), assistant("b")], {}, "the content of turn 0 (system)"),
        (DEAF, [user("a"), assistant("", tool_calls=[CALL])], {}, "the 'tool_calls' of turn 1"),
        (DEAF, [user("a"), assistant("b")], {"given": {"tools": [TOOL]}}, "'tools'"),
        (DEAF, [user("a"), assistant("b", reasoning_content="hm")], {}, "the 'reasoning_content' of turn 1"),
        (ALPACA, [user("a"), assistant("b", tool_calls=[CALL])], {}, "the 'tool_calls' of turn 1"),
        ("{% for m in messages %}{{ m.content.split('</think>')[-1] + eos_token }}{% endfor %}",
         [user("a"), assistant("<think>hm</think>b")], {}, "the thought of turn 1"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_named(template, turns, rest, reason) -> None:
    with pytest.raises(BadRow) as caught:
        trained(template, *turns, **rest)
    assert str(caught.value).startswith(f"the chat template leaves out {reason}: ")


SETTING = "{%- if not date is defined -%}{%- set date = 'today' -%}{%- endif -%}{{- date -}}"


def test_settings_that_the_template_does_not_read_are_refused_by_name() -> None:
    turns = (user("a"), assistant("b"))
    for template in (SETTING + CHATML, SETTING + GENERATION):
        assert trained(template, *turns, given={"date": "May"})[0].startswith("b")
        with pytest.raises(
            BadRow, match="'chat_template_kwargs' has 'enable_thinking', which the chat template does not"
        ):
            trained(template, *turns, given={"date": "May", "enable_thinking": False})
    with pytest.raises(BadRow, match="has 'role', which"):  # a name of the template's own
        trained(QWEN3, *turns, given={"role": "x"})
    assert trained(QWEN3, *turns, given={"tools": [TOOL]})


@pytest.mark.parametrize("name", ["enable_thinking", "keep"])
def test_a_setting_is_read_wherever_a_template_reads_it(name) -> None:
    inner = f"{{% if {name} is defined and {name} is false %}}x{{% endif %}}"
    macro = f"{{% macro write() %}}{inner}{{% endmacro %}}{{{{ write() }}}}"
    for place in (inner, macro, f"{{% for m in messages %}}{inner}"
                  "{% if m.role == 'y' %}{% continue %}{% endif %}{% endfor %}"):  # fmt: skip
        assert name in variables(place)
    assert name not in variables(CHATML)
    assert name in variables("{% broken " + name)  # that it is broken, it says when it writes


def test_the_name_of_a_speaker_is_written_or_refused() -> None:
    turns = [{**user("a"), "name": "Ann"}, assistant("b", name="Bob")]
    named = "{% for m in messages %}<{{ m.role }} {{ m.name }}>{{ m.content + eos_token }}{% endfor %}"
    assert (
        render({"messages": turns, "trained_from": 0}, make_tokenizer(), named).text
        == "<user Ann>a</s><assistant Bob>b</s>"
    )
    for left, reason in ((turns, r"turn 0 \(user\)"), ([user("a"), turns[1]], r"turn 1 \(assistant\)")):
        with pytest.raises(BadRow, match=rf"leaves out the 'name' of {reason}: take it out of the row$"):
            trained(CHATML, *left)
    with pytest.raises(BadRow, match="leaves out tools, thoughts and names"):
        render({"messages": turns, "trained_from": 0}, make_tokenizer(), None)
    call = assistant("", tool_calls=[CALL])
    assert trained(CHATML, user("a"), call, {"role": "tool", "name": "weather", "content": "4"}, assistant("b"))


def test_a_silent_turn_has_no_loss_even_where_prompts_have() -> None:
    record = {"messages": [user("q"), assistant("BAD"), user("r"), assistant("GOOD")], "trained_from": 0}
    tokenizer = make_tokenizer(extra=SPECIAL)
    passage = render({**record, "silent": [1, 2], "prompt_too": True}, tokenizer, CHATML)
    ((_, labels),) = tokenize([passage], tokenizer, add_special_tokens=False, train_on_prompt=True)
    learned = tokenizer.decode([label for label in labels if label != -100])
    assert (
        learned == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<|im_start|>assistant\nGOOD<|im_end|></s>\n"
    )


def test_the_bos_stands_once() -> None:
    tokenizer = make_tokenizer(bos=True)
    opened = "{{- bos_token -}}\n" + CHATML
    for said in ("<s>q", "<s><s>q"):
        record = {"messages": [user(said), assistant("a")], "trained_from": 0}
        assert render(record, tokenizer, opened).text.count("<s>") == 1
        plain = render(record, tokenizer, None)
        assert tokenizer.decode(tokenizer(plain.text)["input_ids"]) == "<s>qa</s>"
    assert without_opening("<s>a", make_tokenizer()) == "<s>a"  # that tokenizer adds none, so this one stays


def test_the_bos_stands_once_below_a_system_text_and_after_a_line_end() -> None:
    tokenizer = make_tokenizer(bos=True)
    opened, system = "{{- bos_token -}}\n" + CHATML, {"role": "system", "content": "s"}
    for turns in ([system, user("<s>q")], [user("\n<s>q")], [{**system, "content": "<s>s"}, user(" <s><s>q")]):
        record = {"messages": [*turns, assistant("a")], "trained_from": 0}
        text = render(record, tokenizer, opened).text
        assert text.startswith("<s><|im_start|>")
        assert text.count("<s>") == 1
    silent = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"  # writes no bos: the row's own stays
    record = {"messages": [user("<s>q"), assistant("a")], "trained_from": 0}
    assert render(record, tokenizer, silent).text == "<s>q</s>a</s>"
    assert render(record | {"messages": [user("<s>"), assistant("a")]}, tokenizer, opened).text.count("<s>") == 2


@pytest.mark.parametrize("text", ["<s>a</s>", "\n<s>a</s>\n", " a </s>  ", "a"])
def test_a_text_is_opened_and_closed_once(text) -> None:
    tokenizer = make_tokenizer(bos=True)
    passage = render({"text": text}, tokenizer, None)
    decoded = tokenizer.decode(tokenizer(passage.text)["input_ids"])
    assert (decoded.count("<s>"), decoded.count("</s>")) == (1, 1)
    assert decoded.startswith("<s>")
    assert decoded.endswith("</s>")


@pytest.mark.parametrize(
    ("kind", "template", "system"),
    [(kind, template, system) for kind in ("pairs", "judged", "prompts") for template in ("none", "chatml")
     for system in ({}, {"system": "Be brief."}) if (kind, template) != ("prompts", "none") or not system],
)  # fmt: skip
def test_the_bos_stands_once_for_every_method(write, kind, template, system) -> None:
    tokenizer = make_tokenizer(bos=True)
    rows = [{**system, "prompt": f"<s>q{number}", "chosen": "a", "rejected": "b"} for number in range(4)]
    for row in prepare(section(write("x.jsonl", rows), template=template), kind, tokenizer).train:
        if kind == "prompts":
            turns = row["prompt"]
            written = turns if template == "none" else tokenizer.apply_chat_template(turns, tokenize=False)
            assert written.count("<s>") == (0 if template == "none" else 1)  # TRL's call of the tokenizer adds it
        else:
            assert tokenizer.decode(row["prompt_ids"]).count("<s>") == 1
            assert tokenizer.decode(row["prompt_ids"]).startswith("<s>")
