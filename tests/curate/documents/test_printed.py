"""What a person sees in a printed page is what its blocks have."""

from __future__ import annotations

from ftlib.curate.documents.blocks import Block
from tests.curate.documents.conftest import SENTENCE


def of(blocks: list[Block], kind: str) -> list[str]:
    return [block.text for block in blocks if block.kind == kind]


def test_headings_have_their_levels(blocks: list[Block]) -> None:
    headings = [(block.level, block.text) for block in blocks if block.kind == "heading"]
    assert headings == [(1, "Handbook of the depot"), (2, "The day"), (2, "The office"), (2, "The end")]


def test_columns_are_read_one_after_the_other_and_paragraphs_go_on_over_columns_and_pages(blocks: list[Block]) -> None:
    long = [block for block in blocks if block.text.startswith("Each clerk")]
    assert [block.text.count(SENTENCE) for block in long] == [30, 90]
    assert long[1].first < long[1].last


def test_a_word_parted_at_a_line_is_whole_and_a_hyphenated_one_keeps_its_hyphen(blocks: list[Block]) -> None:
    [parted] = [block.text for block in blocks if block.text.startswith("The warehouse of the department is")]
    sentence = "The warehouse of the department is well-known for its temperature control."
    assert parted == " ".join([sentence] * 12)


def test_ligatures_are_letters(blocks: list[Block]) -> None:
    assert "The office of a difficult flight offers fine coffee." in of(blocks, "paragraph")


def test_what_repeats_on_every_page_is_left_out(blocks: list[Block]) -> None:
    text = "\n".join(block.text for block in blocks)
    assert "Confidential" not in text
    assert not any(block.text.isdecimal() for block in blocks)


def test_a_table_is_markdown_with_whole_cells(blocks: list[Block]) -> None:
    assert of(blocks, "table") == [
        "| Parcel | Price |\n| --- | --- |\n| Small, up to one kilogram | 4.20 |\n| Large | 9.80 |"
    ]


def test_code_keeps_its_lines(blocks: list[Block]) -> None:
    assert of(blocks, "code") == ["for parcel in van:\n    weigh(parcel)\n\n    if heavy:\n        refuse()"]


def test_a_list_has_a_line_for_each_item(blocks: list[Block]) -> None:
    assert of(blocks, "list") == ["- Lock the door.\n- Take the keys of the second van along."]
