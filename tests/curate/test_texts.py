"""What is measured of texts: language, repetition, oddity, cut ends, cells, equal texts."""

from __future__ import annotations

import pytest

from ftlib.curate.cells import odd_cells
from ftlib.curate.cut_answers import cut_answers, is_cut
from ftlib.curate.exact_duplicates import digests, firsts
from ftlib.curate.languages import UNKNOWN, language
from ftlib.curate.odd import strangest
from ftlib.curate.repetition import repetition
from ftlib.data.read import Row

SENTENCE = "The old keeper of the light went up the stairs and looked for the ship that had not come"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Where can I change the address on my invoice?", "en"),
        ("Wo kann ich die Adresse auf meiner Rechnung ändern?", "de"),
        ("¿Dónde puedo cambiar la dirección de mi factura?", "es"),
        ("Où puis-je changer l'adresse sur ma facture ?", "fr"),
        ("請求書の住所はどこで変更できますか", "ja"),
        ("ok", UNKNOWN),
        ("12 + 30 = 42", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_language_is_known_or_said_to_be_unknown(text: str, code: str) -> None:
    assert language(text) == code


def test_repetition_is_a_share() -> None:
    assert repetition(SENTENCE) == repetition("") == 0
    assert repetition(f"{SENTENCE} {SENTENCE}") == pytest.approx(0.5, abs=0.01)
    assert repetition("the same again " * 50) > 0.9
    assert repetition("a menu\n" + f"{SENTENCE}\n" * 3) > 0.6


def test_the_strangest_rows_come_first_with_a_reason() -> None:
    texts = [f"{SENTENCE} number {place} of {place * 7}." for place in range(40)]
    texts[7], texts[21] = "x7#k9!q2$z8%" * 9, f"{SENTENCE} {SENTENCE} " * 20
    found = strangest(texts, ["en"] * 12 + ["fr"] + ["en"] * 27, most=3)
    assert {one.row for one in found} == {7, 21, 12}
    assert {one.row: one.why for one in found}[12] == "its language is 'fr', not 'en'"
    assert strangest([]) == strangest(["one"]) == []


def test_answers_that_are_cut_are_found_and_their_limit() -> None:
    whole = [f"{SENTENCE} {place}, and then it was {'very ' * place}late." for place in range(20)]
    cut = [f"{SENTENCE} and {SENTENCE.lower()} {place}"[:150] for place in range(5)]
    found = cut_answers([*whole, *cut])
    assert found.rows == (20, 21, 22, 23, 24)
    assert found.length == 150
    assert cut_answers(cut).rows == ()  # nobody ends a sentence there


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f"{SENTENCE}.", False),
        (SENTENCE, True),
        (f"{SENTENCE}, and the", True),
        (f"{SENTENCE}.\n\nBest regards,\nAna", False),
        ("Buy:\n- two pounds of the best flour that they sell", False),
        ("Do:\n1. Wash it well.\n2. Dry it.\n3. Put it back in the place where it", True),
        (f"{SENTENCE}: https://example.com/a", True),
        ("", False),
    ],
)
def test_where_an_answer_ends(text: str, cut: bool) -> None:
    assert is_cut(text) is cut


def test_cells_say_where_they_are() -> None:
    cells = ["fine", " ", None, "N/A", "caf\u00c3\u00a9", "a<br>b &amp; c", "bro\ufffdken", "zero\u200bwidth"]
    found = odd_cells([Row(f"t.csv:{line}", {"body": cell, "id": line}) for line, cell in enumerate(cells, 2)])
    assert [(one.column, one.what, one.count, one.where) for one in found[:1]] == [
        ("body", "is empty", 3, ("t.csv:3", "t.csv:4", "t.csv:5"))
    ]
    assert [one.where[0] for one in found[1:]] == ["t.csv:6", "t.csv:7", "t.csv:8", "t.csv:9"]


def test_equal_texts_name_the_first() -> None:
    found = digests(["One  two", "three", "one TWO\n", "caf\u00e9", "cafe\u0301"])
    assert list(firsts(found)) == [0, 1, 0, 3, 3]
    assert [hex(int(one)) for one in digests(["one two"])] == ["0x5dec09e91a8dcb07"]
