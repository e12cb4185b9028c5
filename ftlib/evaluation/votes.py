"""Votes of people on pairs of answers: shown blind, kept in a file, summed up.

The file has a JSON line for each vote, on the disk before the next pair is shown:

    {"time": 1790000000.0, "voter": "ana", "pair": "1f0c...", "a": "base", "b": "winner", "left": "b", "choice": "a"}

Of several votes of one person on one pair, the last counts. Votes on other pairs may stand in the same file.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

from ftlib.errors import InputError
from ftlib.evaluation.pairs import Pair, Pairs
from ftlib.evaluation.statistics import kappa, win_rate
from ftlib.files.atomic import file_to_disk
from ftlib.files.json_files import append_row, damaged, read_rows

Choice = Literal["a", "b", "tie"]
Side = Literal["left", "right", "tie"]
Ballots = dict[str, Choice]  # by the pair's id
CHOICES: tuple[str, ...] = get_args(Choice)
SIDES: tuple[str, ...] = get_args(Side)
LONGEST_NAME = 64  # characters of a voter's name


@dataclass(frozen=True)
class Shown:
    """A pair as a voter sees it, without a name: `left` and `right` are its answers in this voter's order."""

    pair: Pair
    left: str
    right: str
    judged: int  # pairs, by this voter
    total: int


@dataclass(frozen=True)
class Tally:
    """Votes for A, for B, and ties."""

    a: int
    b: int
    ties: int

    @property
    def rate(self) -> tuple[float, float, float]:
        """The share of decided votes that B has, and its interval; NaN, 0 and 1 for none."""
        rate, span = win_rate(self.b, self.a)
        return rate, span.low, span.high


@dataclass(frozen=True)
class Agreement:
    """Two voters on the pairs that both have judged. `kappa` is NaN where chance alone would agree as well."""

    voters: tuple[str, str]
    pairs: int
    kappa: float


@dataclass(frozen=True)
class Summary:
    """What the votes say. `overall` counts pairs: of several voters on a pair, the choice that most of them made."""

    a: str
    b: str
    overall: Tally
    voters: Mapping[str, Tally]
    agreements: tuple[Agreement, ...]

    def lines(self) -> list[str]:
        """In sentences."""
        if not self.voters:
            return ["no votes yet"]
        said = [f"{self.b} against {self.a}: {_told(self.overall)}"]
        if len(self.voters) > 1:
            said += [f"{voter}: {_told(tally)}" for voter, tally in self.voters.items()]
        return said + [_agreed(agreement) for agreement in self.agreements]


class Booth:
    """Shows the pairs to voters, and keeps what they choose in `file`. Whoever comes back goes on where they were.

    All voters see the pairs in one random order, so that those who stop early have judged the same ones. Which answer
    is on the left is drawn anew for each of them.
    """

    def __init__(self, pairs: Pairs, file: Path) -> None:
        """Raises FtlibError for a damaged file, and InputError where no two answers differ."""
        self._pairs, self._file = pairs, file
        self._order = sorted(pairs.open, key=lambda pair: _drawn("order", pair.id))
        if not self._order:
            raise InputError(f"{pairs.a} and {pairs.b} give the same answer to each prompt: there is nothing to judge.")
        self._by_id = {pair.id: pair for pair in self._order}
        self._votes()

    def next(self, voter: str) -> Shown | None:
        """The first pair that the voter has not judged; None after the last. Raises InputError for no name."""
        judged = self._judged(voter)
        pair = next((pair for pair in self._order if pair.id not in judged), None)
        return None if pair is None else self._shown(pair, voter, len(judged))

    def before(self, voter: str) -> Shown | None:
        """The pair that the voter has judged last: another vote on it takes the place of that one."""
        judged = self._judged(voter)
        return self._shown(self._by_id[list(judged)[-1]], voter, len(judged) - 1) if judged else None

    def vote(self, voter: str, pair: str, side: str) -> None:
        """Keeps a vote: it is on the disk when this returns.

        Raises InputError for what is no name, no pair of these, and no side; StorageError where it cannot be written.
        """
        check_voter(voter)
        if pair not in self._by_id or side not in SIDES:
            raise InputError("The vote names no pair of this comparison, or no side: load the page again.")
        left = self._left(pair, voter)
        choice = side if side == "tie" else left if side == "left" else _other(left)
        names = {"a": self._pairs.a, "b": self._pairs.b}
        append_row(
            self._file, {"time": time.time(), "voter": voter, "pair": pair, **names, "left": left, "choice": choice}
        )
        file_to_disk(self._file)

    def summary(self) -> Summary:
        """Of all votes in the file on these pairs."""
        votes = self._votes()
        return summed(self._pairs.a, self._pairs.b, votes)

    def _shown(self, pair: Pair, voter: str, judged: int) -> Shown:
        left, right = (pair.a, pair.b) if self._left(pair.id, voter) == "a" else (pair.b, pair.a)
        return Shown(pair, left, right, judged, len(self._order))

    def _left(self, pair: str, voter: str) -> Literal["a", "b"]:
        return "a" if _drawn("side", voter, pair) % 2 else "b"

    def _judged(self, voter: str) -> Ballots:
        check_voter(voter)
        return self._votes().get(voter, {})

    def _votes(self) -> dict[str, Ballots]:
        """By voter, the last vote last. Another process may have written since."""
        votes: dict[str, Ballots] = {}
        for number, row in enumerate(read_rows(self._file), 1):
            voter, pair, choice = _vote(self._file, number, row)
            if pair in self._by_id:
                ballots = votes.setdefault(voter, {})
                ballots.pop(pair, None)
                ballots[pair] = choice
        return votes


def check_voter(name: object) -> None:
    """Raises InputError for what cannot be a voter's name."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InputError(f"A voter's name has 1 to {LONGEST_NAME} printable characters, and no space at its ends.")


def summed(a: str, b: str, votes: Mapping[str, Ballots]) -> Summary:
    """The sum of votes, by voter and pair."""
    by_pair: dict[str, list[Choice]] = {}
    for ballots in votes.values():
        for pair, choice in ballots.items():
            by_pair.setdefault(pair, []).append(choice)
    agreements = tuple(_agreement(one, other, votes) for one, other in combinations(votes, 2))
    tallies = {voter: _tally(ballots.values()) for voter, ballots in votes.items()}
    return Summary(a, b, _tally(map(_most, by_pair.values())), tallies, agreements)


def _agreement(one: str, other: str, votes: Mapping[str, Ballots]) -> Agreement:
    both = [pair for pair in votes[one] if pair in votes[other]]
    found = kappa([votes[one][pair] for pair in both], [votes[other][pair] for pair in both])
    return Agreement((one, other), len(both), found)


def _tally(choices: Iterable[Choice]) -> Tally:
    counts = Counter(choices)
    return Tally(counts["a"], counts["b"], counts["tie"])


def _most(choices: Sequence[Choice]) -> Choice:
    """What most chose of A and B; as many of each is a tie."""
    lead = choices.count("b") - choices.count("a")
    return "b" if lead > 0 else "a" if lead < 0 else "tie"


def _told(tally: Tally) -> str:
    pairs = tally.a + tally.b + tally.ties
    counts = f"{_counted(tally.b, 'win')}, {_counted(tally.a, 'loss', 'losses')}, {_counted(tally.ties, 'tie')}"
    if not tally.a + tally.b:
        return f"{counts} in {_counted(pairs, 'pair')}"
    rate, low, high = (100 * share for share in tally.rate)
    won = f"wins {rate:.1f} % ({low:.1f} to {high:.1f}) of those decided"
    return f"{won}: {counts} in {_counted(pairs, 'pair')}"


def _agreed(agreement: Agreement) -> str:
    one, other = agreement.voters
    if math.isnan(agreement.kappa):
        return f"{one} and {other}: no agreement can be computed from {_counted(agreement.pairs, 'common pair')}"
    return f"{one} and {other}: Cohen's kappa {agreement.kappa:.2f} on {_counted(agreement.pairs, 'common pair')}"


def _counted(number: int, thing: str, things: str = "") -> str:
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


def _vote(file: Path, number: int, row: Mapping[str, Any]) -> tuple[str, str, Choice]:
    voter, pair, choice = row.get("voter"), row.get("pair"), row.get("choice")
    if not isinstance(pair, str) or choice not in CHOICES or not isinstance(voter, str):
        raise damaged(file, f"line {number}: it is no vote")
    return voter, pair, choice


def _other(side: Literal["a", "b"]) -> Literal["a", "b"]:
    return "b" if side == "a" else "a"


def _drawn(*what: str) -> int:
    """A number that looks random, and is the same for the same words."""
    return int.from_bytes(hashlib.sha256("\0".join(what).encode("utf-8", "surrogatepass")).digest())
