"""A text as its sentences, without a model: good enough to cut between them, where a mark ends them.

An abbreviation ends none, nor does an initial; where in doubt a text is not cut.
"""

from __future__ import annotations

import re

END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=[^\sa-z])|(?<=[。！？])[」』”]*|\n{2,}")
ABBREVIATED = re.compile(
    r"(?:^|[\s(\[])(?:[A-Z]|(?i:e\.g|i\.e|cf|vs|etc|al|fig|figs|eq|eqs|no|nos|vol|pp|ch|sec|ca|approx"
    r"|dr|mr|mrs|ms|prof|st|jr|sr|inc|ltd|co|corp|z\.b|bzw|usw|nr|abb|art|p\.ex))\.$"
)


def sentences(text: str) -> list[str]:
    """The sentences in order; joined with nothing between them they are the text again."""
    found: list[str] = []
    start = 0
    for match in END.finditer(text):
        if match.end() > start and not ABBREVIATED.search(
            text[max(start, match.start() - 12) : match.start()].rstrip()
        ):
            found.append(text[start : match.end()])
            start = match.end()
    return [*found, text[start:]] if start < len(text) else found
