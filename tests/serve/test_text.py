"""Text from tokens, without a model."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from serve.engine.text import Decoder, Spelling, TextStream

TEXT = "größe 日本語 🙂 end, the end"


def from_bytes(ids: list[int]) -> str:
    """A byte-level tokenizer: one token is one byte, so most characters come in pieces."""
    return bytes(ids).decode("utf-8", errors="replace")


def stream(data: bytes, stop=()) -> tuple[list[str], bool]:
    text = TextStream(from_bytes, stop)
    pieces = []
    for byte in data:
        pieces.append(text.push(byte))
        if text.stopped:
            break
    return [*pieces, text.finish()], text.stopped


def test_no_character_comes_in_halves():
    pieces, stopped = stream(TEXT.encode())
    assert "".join(pieces) == TEXT
    assert not stopped
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
    assert pieces[0] == "g"  # what is certain is not held back


def test_an_answer_cut_inside_a_character_is_what_the_tokenizer_makes_of_it():
    data = TEXT.encode()[:10]
    assert "".join(stream(data)[0]) == from_bytes(list(data))


@pytest.mark.parametrize(
    ("stop", "kept"), [(["end"], "größe 日本語 🙂 "), (["本語"], "größe 日"), ([", the end"], TEXT[:-9])]
)
def test_a_stop_string_that_spans_tokens(stop, kept):
    pieces, stopped = stream(TEXT.encode(), stop)
    assert ("".join(pieces), stopped) == (kept, True)


def test_the_start_of_a_stop_string_is_shown_once_it_is_none():
    pieces, stopped = stream(b"aab aac", ["aabb", "zz", ""])
    assert ("".join(pieces), stopped) == ("aab aac", False)
    assert pieces[:4] == ["", "", "", "aab "]


def test_any_text_is_cut_at_the_first_stop_string():
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices("abü🙂", k=12))
        stop = ["".join(draw.choices("abü🙂", k=draw.randint(1, 3)))]
        pieces, stopped = stream(text.encode(), stop)
        assert "".join(pieces) == text.split(stop[0])[0]
        assert stopped == (stop[0] in text)


def test_a_token_of_sentencepiece_has_its_bytes_and_its_space() -> None:
    vocabulary = {"<unk>": 0, "▁the": 1, "a": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    spelling = Spelling(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>"))
    assert (spelling.raw(1), spelling.alone(1)) == (None, " the")
    assert (spelling.raw(3 + 0xE6), spelling.alone(3 + 0xE6)) == (b"\xe6", "bytes:\\xe6")
    assert (spelling.raw(3 + 0x41), spelling.alone(3 + 0x41)) == (b"A", "A")
    assert (spelling.raw(0), spelling.alone(0)) == (b"", "")


def test_a_token_alone_is_decoded_once() -> None:
    asked: list[list[int]] = []

    class Letters:
        def decode(self, ids: list[int], **_: object) -> str:
            asked.append(ids)
            return "".join(map(chr, ids))

    decode = Decoder(Letters())
    for _ in range(2):
        stream = TextStream(decode)
        assert "".join(map(stream.push, b"abab")) == "abab"
    assert sum(len(ids) == 1 for ids in asked) == 2
