"""A budget of one teacher in one block. A request is begun only where it fits at its dearest, so the budget is never
passed, and whether it fits does not depend on how fast others are answered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ftlib.curate.teachers.request import Missing, Reply, Request

Spent = tuple[int, float]  # tokens, money
NOTHING: Spent = (0, 0.0)


@dataclass
class Purse:
    """What may be spent, and what is. `prices`: of a token read, of a token written."""

    tokens: float = math.inf
    money: float = math.inf
    prices: tuple[float, float] = (0.0, 0.0)
    spent: Spent = NOTHING
    ended: bool = False
    _held: dict[int, Spent] = field(default_factory=dict)

    def fits(self, request: Request) -> bool:
        """Whether the request can be paid for, also where all that are under way cost the most."""
        most = _sum([self.spent, *self._held.values(), self._most(request)])
        return most[0] <= self.tokens and most[1] <= self.money

    def hold(self, number: int, request: Request) -> None:
        """The request is under way."""
        self._held[number] = self._most(request)

    def settle(self, number: int, answer: Reply | Missing) -> None:
        """The request is answered."""
        self._held.pop(number, None)
        if isinstance(answer, Reply):
            self.spent = _sum([self.spent, self._cost(answer.read, answer.written)])

    def _most(self, request: Request) -> Spent:
        return self._cost(request.most_read, request.max_tokens)

    def _cost(self, read: int, written: int) -> Spent:
        return read + written, read * self.prices[0] + written * self.prices[1]


def _sum(parts: list[Spent]) -> Spent:
    return sum(tokens for tokens, _ in parts), math.fsum(money for _, money in parts)
