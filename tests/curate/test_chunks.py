"""Chunks hold all of a document in order, within their size, cut where a person would cut."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.curate.chunks import By, Chunk, chunk
from ftlib.curate.documents.blocks import Block, Document
from ftlib.curate.sentences import sentences


def words(text: str) -> int:
    return len(text.split())


def cut(blocks: list[Block], **how: object) -> list[Chunk]:
    options: dict[str, object] = {"tokens": 12, "overlap": 0, "count": words} | how
    return list(chunk(Document("manual.pdf", iter(blocks), "page"), **options))  # type: ignore[arg-type]


def texts(blocks: list[Block], **how: object) -> list[str]:
    return [made.text for made in cut(blocks, **how)]


A, B = Block("heading", "Parcels", 1, 1, 1), Block("heading", "Small", 2, 2, 2)

word = st.text("abcdé一", min_size=1, max_size=12)
said = st.lists(st.lists(word, min_size=1, max_size=9).map(lambda words: " ".join(words) + "."), min_size=1, max_size=6)
block = st.one_of(
    st.builds(Block, st.just("heading"), word, level=st.integers(1, 4)),
    st.builds(Block, st.just("paragraph"), said.map(" ".join)),
    st.builds(Block, st.sampled_from(["list", "code"]), said.map("\n".join)),
)
documents = st.lists(block, max_size=12).map(
    lambda blocks: [replace(block, first=1 + place // 3, last=1 + place // 3) for place, block in enumerate(blocks)]
)


@settings(max_examples=40, deadline=None)
@given(documents, st.integers(6, 40), st.sampled_from(["headings", "paragraphs", "pages"]))
def test_nothing_is_lost_and_the_order_and_the_size_are_kept(blocks: list[Block], tokens: int, by: By) -> None:
    made = cut(blocks, tokens=tokens, by=by, with_headings=False)
    assert bare(" ".join(one.text for one in made)) == bare(" ".join(block.text for block in blocks))
    assert all(0 < words(one.text) == one.tokens <= tokens for one in made)


@settings(max_examples=25, deadline=None)
@given(documents, st.integers(16, 40), st.integers(0, 8))
def test_with_headings_and_overlap_the_size_is_kept_and_no_word_is_lost(
    blocks: list[Block], tokens: int, overlap: int
) -> None:
    made = cut(blocks, tokens=tokens, overlap=overlap, count=len)
    assert all(len(one.text) <= tokens for one in made)
    missing = iter(bare("".join(one.text for one in made)))
    assert all(letter in missing for letter in bare("".join(block.text for block in blocks)))
    assert made == cut(blocks, tokens=tokens, overlap=overlap, count=len)


def bare(text: str) -> str:
    """Without spaces, fences and the marks of headings."""
    return re.sub(r"[\s`#]", "", text)


@settings(max_examples=40, deadline=None)
@given(st.text("ab. !?\nA。", max_size=60))
def test_sentences_are_the_text_again(text: str) -> None:
    assert "".join(sentences(text)) == text


def test_a_sentence_ends_at_a_mark_and_not_at_an_abbreviation() -> None:
    text = 'See Fig. 3, e.g. the first. "Is it?" Yes. J. Smith said 3.5 is fine. 好。不好。'
    assert [one.strip() for one in sentences(text)] == [
        "See Fig. 3, e.g. the first.", '"Is it?"', "Yes.", "J. Smith said 3.5 is fine.", "好。", "不好。",
    ]  # fmt: skip


def test_a_chunk_says_its_headings_and_its_pages() -> None:
    blocks = [A, Block("paragraph", "one two three four five six.", 1, 1), B, Block("paragraph", "seven. " * 7, 2, 3)]
    first, second = cut(blocks)
    assert first == Chunk("# Parcels\n\none two three four five six.", ("Parcels",), "manual.pdf#page=1", 8)
    assert second.text == "# Parcels\n\n## Small\n\n" + " ".join(["seven."] * 7)
    assert (second.headings, second.where) == (("Parcels", "Small"), "manual.pdf#page=2-3")


def test_small_neighbours_are_merged_and_a_unit_that_fits_is_not_cut() -> None:
    small = [Block("paragraph", f"one two {n}.", n, n) for n in (1, 2, 3)]
    assert texts(small, by="paragraphs", tokens=7) == ["one two 1.\n\none two 2.", "one two 3."]
    assert [made.where for made in cut(small, by="pages", tokens=7)] == ["manual.pdf#page=1-2", "manual.pdf#page=3"]


def test_what_is_too_long_is_cut_between_sentences_and_repeats_the_last_ones() -> None:
    long = Block("paragraph", "One two three. Four five six. Seven eight nine. Ten eleven.", 1, 1)
    assert texts([long], tokens=7, overlap=3) == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine. Ten eleven.",
    ]


def test_a_table_is_cut_between_rows_and_its_header_is_repeated() -> None:
    rows = "\n".join(f"| {n} | {n} |" for n in range(4))
    made = texts([Block("table", f"| A | B |\n| --- | --- |\n{rows}", 1, 1)], tokens=20)
    assert made == [f"| A | B |\n| --- | --- |\n| {n} | {n} |\n| {n + 1} | {n + 1} |" for n in (0, 2)]


def test_code_is_cut_between_lines_and_each_part_stands_between_fences() -> None:
    made = texts([Block("code", "if a:\n    b()\n\nelse:\n    c()", 1, 1)], tokens=5)
    assert made == ["```\nif a:\n    b()\n```", "```\nelse:\n    c()\n```"]


def test_a_heading_or_a_term_goes_with_what_stands_under_it() -> None:
    blocks = [Block("paragraph", "one two three. " * 3, 1, 1), Block("paragraph", "For example:", 1, 1)]
    blocks += [Block("code", "ls -l\ncd a", 1, 1)]
    assert texts(blocks, by="paragraphs", tokens=12)[1] == "For example:\n\n```\nls -l\ncd a\n```"
    assert texts([*blocks[:1], B, *blocks[2:]], by="headings", tokens=12)[1].startswith("## Small")


def test_a_word_longer_than_a_chunk_is_cut() -> None:
    assert texts([Block("paragraph", "x" * 10, 1, 1)], tokens=4, count=len) == ["xx", "xxx", "xx", "xxx"]


def test_an_overlap_of_more_than_half_is_refused() -> None:
    with pytest.raises(ValueError, match=r"overlap must be between 0 and half of tokens \(12\), and is 7."):
        cut([], overlap=7)
