"""Greedy decoding of many prompts at once, each with a draft of its answer that is checked in one pass. A row may have
a temperature: its tokens are drawn.

A draft is what the answer may well be (the reference). The model reads prompt and draft together, which costs as much
as to read the prompt: as far as its own choice at each place is the draft's token, the token is taken. From the first
other token on the model writes alone. The answer is that of greedy decoding (speculative decoding: Leviathan et al.
2023, arXiv:2211.17192), and a model that has learned its task writes next to nothing itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

PLACES = 8192  # tokens that are read in one pass
LOGITS = 2**26  # numbers that the vocabulary's logits of one pass may have
KEPT = 0.75  # rows go out of the batch when at most this share of it still writes

Ids = list[int]
Forward = Callable[..., Any]  # a causal language model's: input_ids, attention_mask, position_ids, past_key_values


@dataclass
class Row:
    """One prompt, the draft of its answer, and what was written. `slot` is an adapter's of a bank."""

    prompt: Ids
    draft: Ids
    most: int  # tokens that are written at most
    slot: int = 0
    to_blank_line: bool = False  # the answer ends at its first blank line
    temperature: float = 0.0  # 0: the most likely token, else one that is drawn
    seed: int = 0  # of what is drawn
    written: Ids = field(default_factory=list)
    nll: float = 0.0  # of the right answer's tokens, their negative log-likelihoods added up
    nll_tokens: int = 0

    def take(self, own: Ids, ends: frozenset[int]) -> None:
        """Takes the draft as far as it is the model's `own` choice at each place, and the first other choice."""
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(self.draft, own, strict=False))
        taken = sum(1 for _ in alike)
        self.written = _until([*self.draft[:taken], *own[taken : taken + 1]][: self.most], ends)

    def ended(self, ends: frozenset[int]) -> bool:
        """Whether nothing more is written."""
        return len(self.written) >= self.most or (bool(self.written) and self.written[-1] in ends)


@dataclass
class Decoder:
    """A model in evaluation mode. `routed` is told, before each pass, which slot each row of it has."""

    model: Forward
    ends: frozenset[int]
    pad: int
    vocabulary: int
    device: torch.device
    scores: bool = False  # whether drafts get their `nll`
    routed: Callable[[Sequence[int]], Any] = lambda slots: None

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def write(self, rows: Sequence[Row]) -> None:
        """Fills in what each row's model writes."""
        shared = _shared([row.prompt[:-1] for row in rows])
        order = sorted(rows, key=lambda row: (len(row.prompt) + len(row.draft), row.slot))
        begun: dict[int, Any] = {}
        for batch in self._batches(order, len(shared)):
            batch.sort(key=lambda row: row.slot)
            self._write(batch, shared, begun)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def write_on(self, rows: list[Row], cache: DynamicCache, seen: Tensor) -> None:
        """The same for rows that have begun: the cache holds their prompts and all that they wrote but the last token.

        `seen` [rows, places of the cache] is 0 where a place is nobody's.
        """
        state = self._kept(_State(rows, cache, seen))
        while state is not None:
            state = self._step(state)

    def _batches(self, rows: Sequence[Row], shared: int) -> list[list[Row]]:
        """Rows of like length, as many as one pass takes."""
        batches: list[list[Row]] = []
        width = drafted = 0
        for row in rows:
            width, drafted = max(width, len(row.prompt) + len(row.draft) - shared), max(drafted, len(row.draft) + 1)
            count = len(batches[-1]) + 1 if batches else 1
            fits = count * width <= PLACES and count * drafted * self.vocabulary <= LOGITS
            if batches and fits:
                batches[-1].append(row)
            else:
                batches.append([row])
                width, drafted = len(row.prompt) + len(row.draft) - shared, len(row.draft) + 1
        return batches

    def _write(self, rows: list[Row], shared: Ids, begun: dict[int, Any]) -> None:
        state = self._read(rows, shared, self._begin(rows, shared, begun))
        while state is not None:
            state = self._step(state)

    def _begin(self, rows: list[Row], shared: Ids, begun: dict[int, Any]) -> DynamicCache:
        """What all prompts begin with, read once for each slot."""
        if not shared:
            return DynamicCache()
        slots = sorted({row.slot for row in rows} - set(begun))
        if slots:
            self.routed(slots)
            ids = torch.tensor([shared] * len(slots), device=self.device)
            cache = self.model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1)
            for place, slot in enumerate(slots):
                begun[slot] = _rows_of(cache.past_key_values, [place])
        one = [begun[row.slot] for row in rows]
        return _joined(one)

    def _read(self, rows: list[Row], shared: Ids, cache: DynamicCache) -> _State | None:
        """Prompts and drafts in one pass: [shared | pads | rest of the prompt | draft | pads]."""
        front = max(len(row.prompt) for row in rows) - len(shared)
        drafted = max(len(row.draft) for row in rows)
        ids, seen = [], []
        for row in rows:
            rest, after = row.prompt[len(shared) :], drafted - len(row.draft)
            ids.append([self.pad] * (front - len(rest)) + rest + row.draft + [self.pad] * after)
            seen.append(
                [1] * len(shared) + [0] * (front - len(rest)) + [1] * (len(rest) + len(row.draft)) + [0] * after
            )
        mask = torch.tensor(seen, device=self.device)
        self.routed([row.slot for row in rows])
        out = self.model(
            input_ids=torch.tensor(ids, device=self.device),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, len(shared) :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=drafted + 1,
        )
        if self.scores:
            for row, logits in zip(rows, out.logits, strict=True):
                row.nll, row.nll_tokens = _nll(logits, row.draft), len(row.draft)
        for row, own in zip(rows, _chosen(out.logits, rows), strict=True):
            row.take(own, self.ends)
        read = len(shared) + front
        for number, row in enumerate(rows):  # a draft's tokens after the first other one were never said
            mask[number, read + min(len(row.written) - 1, len(row.draft)) :] = 0
        return self._kept(_State(rows, out.past_key_values, mask))

    def _step(self, state: _State) -> _State | None:
        """One token more of each row."""
        rows, ones = state.rows, torch.ones(len(state.rows), 1, dtype=torch.long, device=self.device)
        position = state.mask.sum(1, keepdim=True)
        state.mask = torch.cat([state.mask, ones], 1)
        self.routed([row.slot for row in rows])
        out = self.model(
            input_ids=torch.tensor([[row.written[-1]] for row in rows], device=self.device),
            attention_mask=state.mask,
            position_ids=position,
            past_key_values=state.cache,
            use_cache=True,
        )
        state.cache = out.past_key_values
        for row, (token,) in zip(rows, _chosen(out.logits[:, -1:], rows), strict=True):
            if not row.ended(self.ends):
                row.written.append(token)
        return self._kept(state)

    def _kept(self, state: _State) -> _State | None:
        """Without the rows that have ended, once they are enough; None when all have."""
        going = [number for number, row in enumerate(state.rows) if not row.ended(self.ends)]
        if not going:
            return None
        if len(going) > KEPT * len(state.rows):
            return state
        places = torch.tensor(going, device=self.device)
        state.cache.batch_select_indices(places)
        return _State([state.rows[number] for number in going], state.cache, state.mask[places])


@dataclass
class _State:
    rows: list[Row]
    cache: DynamicCache
    mask: Tensor  # [rows, places of the cache]


def _chosen(logits: Tensor, rows: Sequence[Row]) -> list[Ids]:
    """The token of each place of [rows, places, vocabulary]: the most likely one; for a row with a temperature, one
    drawn by Gumbel's maximum from its own seed and the place, so that what it writes depends on no other row."""
    chosen: list[Ids] = logits.argmax(-1).tolist()
    for number, row in enumerate(rows):
        if row.temperature > 0:
            warm = logits[number].float() / row.temperature
            chosen[number] = (warm + _gumbel(row, *warm.shape).to(warm.device)).argmax(-1).tolist()
    return chosen


def _gumbel(row: Row, places: int, vocabulary: int) -> Tensor:
    """Noise for [places, vocabulary], drawn on the CPU, where every machine draws the same."""
    first = (row.seed << 20) + len(row.written)
    drawn = [
        torch.empty(vocabulary).exponential_(generator=torch.Generator().manual_seed(first + place))
        for place in range(places)
    ]
    return -torch.stack(drawn).clamp(min=1e-30).log()


def _nll(logits: Tensor, draft: Ids) -> float:
    """Of the draft under [places, vocabulary]: the logits before each of its tokens."""
    targets = torch.tensor(draft, device=logits.device)
    return float(cross_entropy(logits[: len(draft)].float(), targets, reduction="sum")) if draft else 0.0


def _until(ids: Ids, ends: frozenset[int]) -> Ids:
    """Up to the first token that ends an answer, with it."""
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]
    return ids


def _shared(prompts: Sequence[Ids]) -> Ids:
    """The tokens that all begin with."""
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    return [tokens[0] for tokens in alike]


def _rows_of(cache: DynamicCache, rows: list[int]) -> DynamicCache:
    part = copy.deepcopy(cache)
    part.batch_select_indices(torch.tensor(rows))
    return part


def _joined(caches: list[DynamicCache]) -> DynamicCache:
    """One cache of several of the same length, a row each."""
    whole = DynamicCache()
    for layer in range(len(caches[0].layers)):
        keys = torch.cat([cache.layers[layer].keys for cache in caches])
        values = torch.cat([cache.layers[layer].values for cache in caches])
        whole.update(keys, values, layer)
    return whole
