"""A conversation and the template that writes it: the text, and where in it each of the assistant's turns stands.

Templates are programs. Some write earlier turns differently once others follow (Qwen3 and DeepSeek take the thoughts
out of them, Mistral moves the tools to the last question), and some leave out what they do not know. So nothing is
looked for by its words: a turn stands where the text changes when the turn's content does, and whatever of a row
cannot be changed in the text has been left out by the template, which makes the row a bad one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from ftlib.data.fields import BadRow
from ftlib.data.turns import THOUGHT_END, Turn

Span = tuple[int, int]  # characters [start, end)
MARK = "\ue000{}\ue001"  # of Unicode's private use: no text has it, and templates pass it on as it is
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
ELSE = "choose data.template: chatml"


@dataclass(frozen=True)
class Script:
    """Turns, and what writes them. `given` is what the template gets besides them: tools and its own settings."""

    turns: list[Turn]
    tokenizer: Any
    template: str
    given: dict[str, Any]

    @cached_property
    def text(self) -> str:
        """The whole conversation. Raises BadRow where the template refuses it or leaves out a part of it."""
        text = self.write(self.turns)
        self.check()
        return text

    def write(self, turns: list[Turn], *, asks: bool = False, given: dict[str, Any] | None = None) -> str:
        """Some turns as the template writes them; `asks`: with the header of an answer at the end. Raises BadRow."""
        return apply(
            turns, self.tokenizer, self.template, self.given if given is None else given, add_generation_prompt=asks
        )

    def answers(self, wanted: Sequence[int]) -> dict[int, Span]:
        """Where some of the assistant's turns stand, from the header that generation gets to the token that closes the
        turn. Raises BadRow."""
        spoken = [index for index, turn in enumerate(self.turns) if turn["role"] == "assistant"]
        marked = self._by_the_template() if GENERATION.search(self.template) else []
        if len(marked) != len(spoken):
            return {index: self._answer(index) for index in wanted}
        return {index: span for index, span in zip(spoken, marked, strict=True) if index in wanted}

    def place(self, index: int) -> Span:
        """Where a turn stands: the assistant's as in `answers`, another's with its header. Raises BadRow."""
        if self.turns[index]["role"] == "assistant":
            return self.answers([index])[index]
        before, upto = (self.write(self.turns[:count]) if count else "" for count in (index, index + 1))
        return _common(before, self.text), _common(upto, self.text)

    def _by_the_template(self) -> list[Span]:
        """The spans that a template with {% generation %} tells of itself."""
        from transformers.utils.chat_template_utils import render_jinja_template

        settings = {**self.tokenizer.special_tokens_map, **self.given}
        _, spans = render_jinja_template(
            [self.turns], chat_template=self.template, return_assistant_tokens_mask=True, **settings
        )
        return [(start, end) for start, end in spans[0]]

    def _answer(self, index: int) -> Span:
        before = self.write(self.turns[:index], asks=True)
        last = index == len(self.turns) - 1
        if self.text.startswith(before):
            if last:
                return len(before), len(self.text)
            upto = self.write(self.turns[: index + 1])
            if self.text.startswith(upto) and len(upto) > len(before):
                return len(before), len(upto)
        return self._by_change(index, before)

    def _by_change(self, index: int, asked: str) -> Span:
        """The span of a turn that stands in other words in the whole conversation than at the end of a shorter one."""
        text, marked = self.text, self.write(self._marked(index))
        start = _common(text, marked)
        after = _common_end(text[start:], marked[start:])
        if MARK.format(index) not in marked or not marked.startswith(MARK[0], start):
            raise BadRow(f"the chat template writes turn {index} in a way that tells no answer from it; {ELSE}")
        if index == len(self.turns) - 1:
            end = len(text)
        else:
            closing, end = self._closing(index), len(text) - after
            if not self.turns[index]["content"].strip():  # what stands between a content and a call is not written
                closing, end = closing.lstrip(), len(text) - len(text[end:].lstrip())
            end = self._whole_tokens(end + _common(closing, text[end:]))
        if end == len(text) - after:
            raise BadRow(f"the chat template writes what comes before turn {index} differently once the conversation "
                f"is "
                         f"whole, and nothing that closes it; {ELSE}")  # fmt: skip
        if not text[start : len(text) - after].strip() and not self.turns[index].get("tool_calls"):
            raise BadRow(f"the chat template writes nothing of turn {index}: it takes the thoughts out of all turns "
                f"but "
                         f"the last, and this one holds nothing else; {ELSE}")  # fmt: skip
        return self._after_header(index, start, asked), end

    def _after_header(self, index: int, start: int, asked: str) -> int:
        """Where the header of an answer ends whose content starts at `start`: before its thoughts, where it has any."""
        header = asked[_common(asked, self.write(self.turns[:index])) :]
        found = self.text.rfind(header, 0, start) if header else -1
        if found < 0 or found + len(header) == start:
            return start
        marked = self.write(self._marked(index - 1))
        before = len(self.text) - _common_end(self.text, marked)  # the header of another answer is not this one's
        return found + len(header) if found >= before else start

    def _closing(self, index: int) -> str:
        """What the template writes after the content of a turn that is the last."""
        upto, marked = self.write(self.turns[: index + 1]), self.write(self._marked(index)[: index + 1])
        return upto[len(upto) - _common_end(upto, marked.rpartition(MARK[-1])[2]) :]

    def _whole_tokens(self, end: int) -> int:
        """`end`, or the start of the special token that it lies within."""
        for token in self.tokenizer.get_added_vocab():
            for offset in range(1, len(token)):
                if self.text.startswith(token, end - offset):
                    return end - offset
        return end

    def _marked(self, index: int) -> list[Turn]:
        """The turns with a mark in the place of what one of them says. Its thoughts stay."""
        turn = self.turns[index]
        thought, thought_end, answer = turn["content"].rpartition(THOUGHT_END)
        space = answer[: len(answer) - len(answer.lstrip())]
        changed = {**turn, "content": thought + thought_end + space + MARK.format(index)}
        return [*self.turns[:index], changed, *self.turns[index + 1 :]]

    def check(self) -> None:
        """Raises BadRow for what the template leaves out, by name."""
        unread = sorted(self.given.keys() - variables(self.template) - {"tools"})
        if unread:
            raise BadRow(
                f"'chat_template_kwargs' has '{unread[0]}', which the chat template does not read: take it out of the "
                "row"
            )
        changed, given = list(self.turns), dict(self.given)
        looked_for: dict[str, str] = {}
        for index, turn in enumerate(self.turns):
            if turn["content"].rpartition(THOUGHT_END)[2].strip():
                changed[index] = self._marked(index)[index]
                looked_for[MARK.format(index)] = f"the content of turn {index} ({turn['role']})"
            if turn.get("name") and turn["role"] != "tool":
                changed[index] = {**changed[index], "name": MARK.format(f"{index}:name")}
                looked_for[MARK.format(f"{index}:name")] = f"the 'name' of turn {index} ({turn['role']})"
            if turn.get("tool_calls"):
                calls = [_marked_call(call, f"{index}:{number}") for number, call in enumerate(turn["tool_calls"])]
                changed[index] = {**changed[index], "tool_calls": calls}
                for number in range(len(calls)):
                    for part in ("name", "arguments"):
                        looked_for[MARK.format(f"{index}:{number}:{part}")] = f"the 'tool_calls' of turn {index}"
        if given.get("tools"):
            given["tools"] = [_marked_tool(tool, number) for number, tool in enumerate(given["tools"])]
            looked_for |= {MARK.format(f"tool {number}"): "'tools'" for number in range(len(given["tools"]))}
        try:
            text = self.write(changed, given=given)
        except BadRow:  # it computes with what is said
            return
        left_out = [name for mark, name in looked_for.items() if mark not in text]
        left_out += self._thoughts_left_out()
        if left_out:
            other = "" if "'name'" in left_out[0] else f"{ELSE}, or "  # chatml writes no names either
            raise BadRow(f"the chat template leaves out {left_out[0]}: {other}take it out of the row")

    def _thoughts_left_out(self) -> Iterator[str]:
        """A template may take thoughts out of earlier turns, but knows them in the last."""
        mark = MARK.format("thought")
        for index, turn in enumerate(self.turns):
            thought, thought_end, answer = turn["content"].rpartition(THOUGHT_END)
            if turn.get("reasoning_content"):
                name, changed = "'reasoning_content'", {**turn, "reasoning_content": mark}
            elif turn["role"] == "assistant" and thought.strip().removeprefix("<think>").strip():
                name, changed = "thought", {**turn, "content": thought + mark + thought_end + answer}
            else:
                continue
            if mark not in self.write([*self.turns[:index], changed]):
                yield f"the {name} of turn {index}"


@cache
def variables(template: str) -> frozenset[str]:
    """The names that a template reads from what it is given."""
    from jinja2 import Environment, TemplateError, meta

    marked = GENERATION.sub("", template)  # a tag of transformers' own
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(marked)
    except TemplateError:  # what is wrong with it, it says when it writes
        return frozenset(re.findall(r"\w+", template))
    return frozenset(meta.find_undeclared_variables(parsed))


def apply(
    turns: list[Turn],
    tokenizer: Any,
    template: str,
    given: dict[str, Any] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Turns as the template writes them. Raises BadRow where it refuses."""
    try:
        text: str = tokenizer.apply_chat_template(
            turns,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **(given or {}),
        )
    except Exception as error:  # a template is a program: besides raise_exception it may fail in any way
        raise BadRow(
            f"the chat template does not take it: {(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    return text


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _common_end(one: str, other: str) -> int:
    return _common(one[::-1], other[::-1])


def with_arguments(turns: list[Turn], write: Callable[[list[Turn]], str]) -> list[Turn]:
    """The turns with the arguments of their calls as the template takes them: as objects, or as texts of JSON where it
    does not write objects as JSON (DeepSeek's does not)."""
    arguments = [call["function"]["arguments"] for turn in turns for call in turn.get("tool_calls") or ()]
    if not any(arguments):
        return turns
    try:
        text = write(turns)
        if not any(str(argument) in text for argument in arguments if argument):
            return turns
    except BadRow:
        pass
    return [_with_texts(turn) if turn.get("tool_calls") else turn for turn in turns]


def _with_texts(turn: Turn) -> Turn:
    calls = []
    for call in turn["tool_calls"]:
        text = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": text}})
    return {**turn, "tool_calls": calls}


def _marked_call(call: dict[str, Any], name: str) -> dict[str, Any]:
    mark = MARK.format(f"{name}:arguments")
    arguments: Any = {mark: mark}
    if isinstance(call["function"]["arguments"], str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {"name": MARK.format(f"{name}:name"), "arguments": arguments}}


def _marked_tool(tool: dict[str, Any], number: int) -> dict[str, Any]:
    return {**tool, "function": {**tool["function"], "name": MARK.format(f"tool {number}")}}
