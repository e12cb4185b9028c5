"""How a chat template writes turns, found by having it write some, and said again in the template language of Go.

Ollama reads no Jinja. A template that writes each turn as its role's words before and after the text can be said in
Go, whatever family it is of (ChatML, Llama 3, Zephyr, Phi ...), and so can one that writes the system message into the
first question (Gemma). What is found is believed once it writes whole chats as the template does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ftlib.errors import InputError

Chat = Sequence[dict[str, str]]
Write = Callable[[Chat, bool], str]  # (turns, whether an answer is asked for) -> text
SYSTEM, FIRST, SAID, AGAIN = "qSYSTEMq", "qFIRSTq", "qSAIDq", "qAGAINq"  # texts that no template has of its own
Words = tuple[str, str]  # before and after a turn's text


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CHATS: tuple[Chat, ...] = (
    [_turn("user", FIRST)],
    [_turn("user", FIRST), _turn("assistant", SAID), _turn("user", AGAIN)],
    [_turn("system", SYSTEM), _turn("user", FIRST)],
    [_turn("system", SYSTEM), _turn("user", FIRST), _turn("assistant", SAID), _turn("user", AGAIN)],
)


@dataclass(frozen=True)
class Turns:
    """The words around the texts of each role. `asks` asks for an answer; `default` is the system message where a chat
    has none; `joined` stands between a system message and the question that it is written into, None where it is a
    turn of its own (`system`) or the template takes none."""

    user: Words
    assistant: Words
    asks: str
    system: Words | None = None
    joined: str | None = None
    default: str | None = None

    def write(self, chat: Chat) -> str:
        """A chat that asks for an answer, as the Go template writes it."""
        said = [turn["content"] for turn in chat if turn["role"] == "system"] or [self.default or ""]
        text, waiting = "", said[0] if self.joined is not None else ""
        if self.system and said[0]:
            text += said[0].join(self.system)
        for turn in chat:
            if turn["role"] == "user":
                opening = f"{waiting}{self.joined}" if waiting else ""
                text, waiting = text + f"{opening}{turn['content']}".join(self.user), ""
            elif turn["role"] == "assistant":
                text += turn["content"].join(self.assistant)
        return text + self.asks

    def go(self) -> str:
        """The same in Go's template language, with the names of Ollama (.Messages, .System)."""
        before, after = self.user
        asked = f"{before}{{{{ .Content }}}}{after}"
        opening, system = "", ""
        if self.joined is not None:
            opening = "{{ $told := false }}"
            told = "{{ if and $.System (not $told) }}{{ $.System }}" + self.joined + "{{ $told = true }}{{ end }}"
            asked = f"{before}{told}{{{{ .Content }}}}{after}"
        elif self.system is not None:
            system = f'{{{{ if eq .Role "system" }}}}{self.system[0]}{{{{ .Content }}}}{self.system[1]}{{{{ end }}}}'
        answered = f"{self.assistant[0]}{{{{ .Content }}}}{self.assistant[1]}"
        return (
            f"{opening}{{{{ range .Messages }}}}{system}"
            f'{{{{ if eq .Role "user" }}}}{asked}{{{{ end }}}}'
            f'{{{{ if eq .Role "assistant" }}}}{answered}{{{{ end }}}}'
            f"{{{{ end }}}}{self.asks}"
        )


def turns_of(write: Write, opening: str, owner: str) -> Turns:
    """What a template writes. `opening` is the token that llama.cpp puts before all by itself, "" for none.

    Raises InputError for a template that writes turns in another way than can be said.
    """

    def written(chat: Chat, asks: bool = True) -> str | None:
        try:
            return write(chat, asks).removeprefix(opening)
        except Exception:  # a template may refuse a chat, each in its own way
            return None

    wanted = [written(chat) for chat in CHATS]
    found = None if wanted[0] is None or wanted[1] is None else _found(wanted, written)
    known = [(chat, text) for chat, text in zip(CHATS, wanted, strict=True) if text is not None]
    if found is None or any(found.write(chat) != text for chat, text in known):
        raise InputError(
            f"{owner}: its chat template writes turns in a way that ftlib cannot say in Ollama's template language: "
            "use --to gguf, and llama.cpp, which reads the template itself."
        )
    texts = (*found.user, *found.assistant, *(found.system or ()), found.asks, found.joined or "", found.default or "")
    if any(sign in text for text in texts for sign in ("{{", "}}", '"""')):
        raise InputError(f'{owner}: its chat template writes {{{{ or """, which a Modelfile cannot hold.')
    return found


def _found(wanted: list[str | None], written: Callable[[Chat, bool], str | None]) -> Turns | None:
    """What the chats tell of the words; None where a text is not in them."""
    first, again, told = wanted[0], wanted[1], wanted[2]
    quiet = written(CHATS[0], False)
    if first is None or again is None or quiet is None or not first.startswith(quiet):
        return None
    asks = first[len(quiet) :]
    parts = _cut(again, FIRST, SAID, AGAIN)
    if parts is None or not parts[3].endswith(asks):
        return None
    after_user = parts[3].removesuffix(asks)
    if not parts[1].startswith(after_user):
        return None
    between = parts[2]  # what ends an answer, and begins a question
    before_said = parts[1][len(after_user) :]
    size = _end_of(between, parts[0], after_user)
    before_user = between[size:]
    system, joined, default = _of_system(told, parts[0].removesuffix(before_user), before_user)
    return Turns((before_user, after_user), (before_said, between[:size]), asks, system, joined, default)


def _end_of(between: str, opening: str, after_user: str) -> int:
    """How much of what stands between an answer and the next question ends the answer: all but the words before a
    question, where a chat opens with these; else as much as ends a question."""
    if between.endswith(opening):
        return len(between) - len(opening)
    return len(after_user) if between.startswith(after_user) else len(between)


def _of_system(told: str | None, always: str, before_user: str) -> tuple[Words | None, str | None, str | None]:
    """(the words around a system message, what joins it to a question, the message that a chat without one gets).

    `always` is what a chat without a system message begins with.
    """
    parts = None if told is None else _cut(told, SYSTEM, FIRST)
    if parts is None:
        return None, None, None
    if parts[0] == before_user and not always:
        return None, parts[1], None
    after = parts[1].removesuffix(before_user)
    default = always.removeprefix(parts[0]).removesuffix(after) if always else None
    return (parts[0], after), None, default


def _cut(text: str, *texts: str) -> list[str] | None:
    """What stands before, between and after texts that stand in this order."""
    parts = []
    for one in texts:
        before, found, text = text.partition(one)
        if not found:
            return None
        parts.append(before)
    return [*parts, text]
