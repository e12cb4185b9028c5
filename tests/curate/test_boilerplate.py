"""Lines that many texts share are found, over parts that are counted apart, and left out."""

from __future__ import annotations

from ftlib.curate.boilerplate import Lines, without

TEXTS = [f"Acme  Handbook\nPage {n}\n\nParcel {chr(97 + n)} is heavy.\n\nCall us at 555" for n in range(10)]


def test_lines_that_repeat_are_left_out() -> None:
    first, second = Lines(), Lines()
    for number, text in enumerate(TEXTS):
        (first if number % 2 else second).add(text)
    first.merge(second)
    assert without(TEXTS[2], first.repeated()) == ("Parcel c is heavy.", 3)
    assert without("Only here.\n\n\n", first.repeated()) == ("Only here.\n\n\n", 0)


def test_what_few_texts_share_stays() -> None:
    lines = Lines()
    for text in TEXTS[:4]:
        lines.add(text)
    assert lines.repeated() == frozenset()
