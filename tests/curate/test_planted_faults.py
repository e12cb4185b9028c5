"""Faults planted in real rows are found: the certificate of `ftlib data report`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ftlib.curate.collected import collected
from ftlib.curate.contamination import contaminated, grams_of
from ftlib.curate.exact_duplicates import digests, firsts
from ftlib.curate.inspection import inspect
from ftlib.curate.near_duplicates import groups, near_rows
from ftlib.curate.personal_data import find
from ftlib.data.findings import contradicting
from ftlib.data.read import Row

from .planted import needs_data, planted, real_rows
from .test_personal_data import REGIONS

pytestmark = needs_data
THERE_ARE = {  # in answers of Alpaca's
    "alice@email.com": "email",
    "john@email.com": "email",
    "John.Doe-123%+@example-domain.com": "email",
    "(555) 123-4567": "phone",
    "rT8$jLpZ": "secret",
}


def rows_of(name: str, rows: list[dict[str, Any]]) -> Any:
    return collected(name, "prompt_completion", [Row(f"{name}:{at}", row) for at, row in enumerate(rows, 1)])


def share(found: set[int], places: list[int]) -> float:
    return len(found.intersection(places)) / len(places)


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.matrix)])
def test_planted_faults_are_found(count: int) -> None:
    made = planted(count)
    rows, test = rows_of("train", made.rows), rows_of("test", made.test)
    assert len(rows) == len(made.rows) == pytest.approx(count, rel=0.01)

    first = firsts(digests(rows.texts))
    exact = set(np.flatnonzero(first != np.arange(len(rows))).tolist())
    named = groups(rows.signatures)
    near = set(np.flatnonzero(named != np.arange(len(rows))).tolist())
    cases = contradicting([row.judged for row in rows.gists], [row.verdict for row in rows.gists])
    leaked = contaminated(test.texts, grams_of(rows.texts))
    leaked_near = near_rows(test.signatures, rows.signatures)
    kinds = {row: {span.kind for span in find(rows.texts[row], (), REGIONS)} for row in made.places["personal"]}

    innocent = set(range(len(rows))).difference(*map(set, made.places.values()))
    figures = {
        "exact": share(exact, made.places["exact"]),
        "near": share(near, made.places["near"]),
        "near, false": len(near & innocent) / len(innocent),
        "contradictions": share({row for case in cases for row in case}, made.places["contradiction"]),
        "test rows": float((leaked_near >= 0).mean()),
        "test rows of 13 words, by 13 words": float((leaked >= 0)[[len(t.split()) > 20 for t in test.texts]].mean()),
        "personal": sum(kind in kinds[row] for row, kind in made.kinds.items()) / len(made.kinds),
    }
    print(count, figures)
    assert figures["exact"] == figures["contradictions"] == figures["test rows"] == 1
    assert figures["test rows of 13 words, by 13 words"] == 1
    assert figures["near"] >= 0.95
    assert figures["near, false"] <= 0.005
    assert figures["personal"] >= 0.98

    counts = {
        finding.kind: finding.count for finding in inspect(rows, "prompt_completion", "", evaluation=test).findings
    }
    assert counts["evaluation_same"] == len(test)
    assert counts["exact_duplicates"] >= len(made.places["exact"])


def test_real_texts_without_personal_data_raise_no_alarm() -> None:
    texts = ["\n".join(row.values()) for row in real_rows(1_500)]
    found = {text[span.start : span.end]: span.kind for text in texts for span in find(text)}
    assert found == THERE_ARE
