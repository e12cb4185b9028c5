"""From tokens to the text that may be shown: no half characters, nothing past a stop string."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

HALF = "\N{REPLACEMENT CHARACTER}"  # what a decoder makes of bytes that are no whole character yet


class TextStream:
    """Takes token ids one by one and gives back text as soon as it is certain.

    `decode` turns ids into text. Tokens are decoded with those before them, since a tokenizer may join them
    differently alone, and from the last certain place on, so that the cost does not grow with the answer.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = [string for string in stop if string]
        self._ids: list[int] = []
        self._context = 0  # ids from here on are decoded
        self._shown = 0  # ids up to here have become text
        self._held = ""  # text that may be the start of a stop string
        self.new = ""  # what the last token made certain, held back or not
        self.passed_on = 0  # characters
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that this token makes certain: often a word, sometimes nothing."""
        self._ids.append(token)
        return self._pass_on(self._new_text(flush=False), flush=False)

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        return self._pass_on(self._new_text(flush=True), flush=True)

    def _new_text(self, flush: bool) -> str:
        before = self._decode(self._ids[self._context : self._shown])
        text = self._decode(self._ids[self._context :])
        if len(text) <= len(before) or (text.endswith(HALF) and not flush):
            self.new = ""
        else:
            self._context, self._shown = self._shown, len(self._ids)
            self.new = text[len(before) :]
        return self.new

    def _pass_on(self, text: str, flush: bool) -> str:
        """Cuts at the first stop string; holds back an end that the next token could turn into one."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [place for string in self._stop if (place := text.find(string)) >= 0]
        if found:
            self.stopped, keep = True, len(text) - min(found)
        else:
            keep = 0 if flush else max((_overlap(text, string) for string in self._stop), default=0)
        certain = text[: len(text) - keep]
        self._held = "" if self.stopped else text[len(certain) :]
        self.passed_on += len(certain)
        return certain


class Decoder:
    """From token ids to text. A stream asks for each of its tokens alone, too: those it remembers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._alone: dict[int, str] = {}

    def __call__(self, ids: list[int]) -> str:
        if len(ids) != 1:
            return self._text(ids)
        if ids[0] not in self._alone:
            self._alone[ids[0]] = self._text(ids)
        return self._alone[ids[0]]

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Spelling:
    """What a token is by itself: the bytes that it stands for, where its tokenizer knows them, and a text for people.

    A character of another script is often several tokens, none of which is a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._added = {number: str(token) for token, number in tokenizer.get_added_vocab().items()}
        self._alphabet = _alphabet() if _is_byte_level(tokenizer) else None
        self._known: dict[int, tuple[bytes | None, str]] = {}

    def raw(self, token: int) -> bytes | None:
        """The bytes that it adds to an answer; None where they depend on the tokens before it."""
        return self._spelt(token)[0]

    def alone(self, token: int) -> str:
        """Its text; `bytes:\\xe6` where it is a part of a character, as OpenAI writes it."""
        return self._spelt(token)[1]

    def _spelt(self, token: int) -> tuple[bytes | None, str]:
        if token not in self._known:
            self._known[token] = self._spell(token)
        return self._known[token]

    def _spell(self, token: int) -> tuple[bytes | None, str]:
        text = str(self._tokenizer.decode([token], skip_special_tokens=True, clean_up_tokenization_spaces=False))
        piece = str(self._tokenizer.convert_ids_to_tokens(token) or "")
        if token in self._special:
            return b"", ""
        if token in self._added:
            return self._added[token].encode(), text
        fallback = re.fullmatch("<0x([0-9A-Fa-f]{2})>", piece)
        if fallback:
            return _part(bytes.fromhex(fallback[1]))
        if self._alphabet is not None and all(character in self._alphabet for character in piece):
            return _part(bytes(self._alphabet[character] for character in piece))
        return None, f" {text}" if piece.startswith("▁") and not text.startswith(" ") else text


def _part(raw: bytes) -> tuple[bytes, str]:
    try:
        return raw, raw.decode()
    except UnicodeDecodeError:
        return raw, "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return b"ByteLevel" in backend.decoder.__getstate__() if backend is not None and backend.decoder else False


def _alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write for bytes, as GPT-2 chose them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + number): byte for number, byte in enumerate(rest)}


def _overlap(text: str, stop: str) -> int:
    """How many of `text`'s last characters are the start of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
