"""From logits to tokens: each row by its own temperature, its own cuts and its own generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

HEAD = 1024  # tokens in which most of the chance is
GREEDY = 1e-4  # logits divided by less overflow, and the best token wins anyway


@dataclass
class Sampling:
    """How one answer is drawn. `logprobs`: how many alternatives are told beside each token; None tells nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    logprobs: int | None = None
    counts: dict[int, int] = field(default_factory=dict)  # of the tokens drawn, where a penalty asks for them

    def __post_init__(self) -> None:
        self.greedy = self.temperature < GREEDY
        self.penalized = bool(self.presence_penalty or self.frequency_penalty)
        self._generator: torch.Generator | None = None

    def generator(self, device: torch.device) -> torch.Generator:
        """Its own: what others draw beside it changes nothing."""
        if self._generator is None:
            self._generator = torch.Generator(device)
            if self.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self.seed % 2**63)
        return self._generator


@dataclass(frozen=True)
class Drawn:
    """One token, with its log-probability and the likeliest (token, log-probability) pairs where they were asked for.

    `token` is None where the model gave no numbers.
    """

    token: int | None
    logprob: float = math.nan
    top: tuple[tuple[int, float], ...] = ()


def draw(logits: Tensor, rows: Sequence[Sampling]) -> list[Drawn]:
    """One token a row of logits [n, vocabulary]."""
    logits = _changed(logits.float(), rows)
    best, tokens = logits.max(dim=-1)
    numbers = torch.isfinite(best).tolist()
    chosen: list[int] = tokens.tolist()
    for row, sampling in enumerate(rows):
        if numbers[row] and not sampling.greedy:
            chosen[row] = _sample(logits[row], sampling)
    told = [row for row, sampling in enumerate(rows) if sampling.logprobs is not None and numbers[row]]
    likelihoods = dict(zip(told, logits[told].log_softmax(-1), strict=True)) if told else {}
    found = []
    for row, sampling in enumerate(rows):
        if not numbers[row]:
            found.append(Drawn(None))
            continue
        if sampling.penalized:
            sampling.counts[chosen[row]] = sampling.counts.get(chosen[row], 0) + 1
        found.append(
            _told(chosen[row], likelihoods[row], sampling.logprobs or 0) if row in likelihoods else Drawn(chosen[row])
        )
    return found


def _sample(logits: Tensor, how: Sampling) -> int:
    """From one row [vocabulary], in the order of transformers: temperature, top-k, top-p, min-p."""
    logits = logits / how.temperature
    if how.top_k and how.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(how.top_k).values[-1], -math.inf)
    chances = logits.softmax(-1)
    if how.top_p < 1:
        ordered, order = _down_to(chances, how.top_p)
        above = ordered.cumsum(-1) - ordered  # of the tokens before each; the first is always kept
        kept = order[(above < how.top_p).index_fill_(0, order.new_zeros(1), True)]
        chances = torch.zeros_like(chances).index_copy_(0, kept, chances[kept])
    if how.min_p > 0:
        chances = chances.masked_fill(chances < how.min_p * chances.max(), 0.0)
    return int(torch.multinomial(chances, 1, generator=how.generator(logits.device)))


def _down_to(chances: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens with their places, best first, whose chances are together at least `share`: few hold most,
    and sorting a vocabulary takes forty times as long as finding them."""
    if len(chances) > HEAD:
        ordered, order = chances.topk(HEAD)
        if float(ordered.sum()) > share + 1e-4:
            return ordered, order
    ordered, order = chances.sort(descending=True)
    return ordered, order


def _changed(logits: Tensor, rows: Sequence[Sampling]) -> Tensor:
    """Penalties for what was said already, and biases, as OpenAI defines them: of all rows at once."""
    changes = [
        (row, token, value)
        for row, how in enumerate(rows)
        if how.penalized or how.logit_bias
        for token, value in _change(how).items()
        if token < logits.shape[-1]
    ]
    if not changes:
        return logits
    at, tokens, values = (list(column) for column in zip(*changes, strict=True))
    logits = logits.clone()
    logits[at, tokens] += torch.tensor(values, device=logits.device)
    return logits


def _change(how: Sampling) -> dict[int, float]:
    """What is added to a row's logits, by token."""
    if not how.counts:
        return how.logit_bias
    change = dict(how.logit_bias)
    for token, count in how.counts.items():
        change[token] = change.get(token, 0.0) - how.presence_penalty - how.frequency_penalty * count
    return change


def _told(token: int, likelihoods: Tensor, count: int) -> Drawn:
    values, tokens = likelihoods.topk(min(count, len(likelihoods)))
    top = tuple(zip(tokens.tolist(), values.tolist(), strict=True))
    return Drawn(token, float(likelihoods[token]), top)
