"""Continuous batching: one forward pass a step for all rows, each with its own adapter, its own length, its own end.

A prompt is read (prefill) in a pass of its own, several short ones together and a long one in parts, so that no one's
next token waits for somebody's book; what it begins with is not read again where another began alike (`prefixes`). Then
it is a row, and leaves when it ends; the others do not notice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from serve.engine.prefixes import KEPT, LEAST, Prefixes, Shared, begun, leaders
from serve.engine.rows import RowCache
from serve.engine.sampling import draw
from serve.engine.sequence import Sequence
from serve.engine.slots import Slots

Begun: TypeAlias = tuple[Sequence, Shared]  # a prompt, and what of it was read already
CHUNK = 512  # tokens of prompts that are read between two steps


@dataclass
class Filling:
    """A long prompt of which a part has been read."""

    sequence: Sequence
    cache: Any
    done: int = 0


class Batch:
    """Rows of `model`. Everything happens on the thread that calls.

    `reads` is what reads a prompt where that is not the model itself: PEFT's wrapper, which puts virtual tokens first.
    `kept` tokens of prompts stay, for those that begin alike.
    """

    def __init__(self, model: Any, slots: Slots, reads: Callable[..., Any] | None = None, kept: int = KEPT) -> None:
        self._model, self._slots, self._reads = model, slots, reads
        self._prefixes = Prefixes(kept)
        self.tokens = 0  # that went through the model, prompts' and answers'
        self.rows: list[Sequence] = []
        self._cache = RowCache()
        self._filling: deque[Filling] = deque()
        self._device = next(model.parameters()).device
        self._masks_are_4d = _masks_are_4d(model.config)

    def __len__(self) -> int:
        return len(self.rows) + len(self._filling)

    @property
    def cells(self) -> int:
        """Tokens' places in the cache: rows by the longest."""
        return len(self.rows) * self._cache.width

    def admit(self, group: list[Sequence]) -> list[Sequence]:
        """Reads prompts, whose adapters are held, and draws the first token of each. Returns those that have one."""
        return [sequence for begun in self.admissions(group) for sequence in begun]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def admissions(self, group: list[Sequence]) -> Iterator[list[Sequence]]:
        """The same, one pass after the other: nobody's first token waits for another's prompt."""
        if self._reads:
            yield from map(self._read_virtual, group)
            return
        while group:
            found = [self._prefixes.find(sequence) for sequence in group]
            now = leaders(group, [shared.length for shared in found])
            yield from self._read_these(
                [pair for pair, leads in zip(zip(group, found, strict=True), now, strict=True) if leads]
            )
            group = [sequence for sequence, leads in zip(group, now, strict=True) if not leads]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def step(self) -> list[Sequence]:
        """One part of a long prompt, then one token of every row. Returns the sequences that got a token."""
        begun = self._read_on()
        stepped = list(self.rows)
        if stepped:
            self._cache.reserve_column()
            positions = torch.tensor(self._cache.lengths, device=self._device)[:, None]
            mask = self._cache.mask(self._device)
            if mask is not None and self._masks_are_4d:
                mask = mask[:, None, None, :]
            ids = torch.tensor([[sequence.tokens[-1]] for sequence in stepped], device=self._device)
            self.tokens += len(stepped)
            with self._mixed(stepped):
                logits = self._model(
                    input_ids=ids,
                    position_ids=positions,
                    attention_mask=mask,
                    past_key_values=self._cache,
                    use_cache=True,
                ).logits[:, -1]
            self._cache.advance()
            self._take(stepped, logits)
            for row in range(len(stepped) - 1, -1, -1):
                if stepped[row].ended:
                    self._leave(row)
        return begun + stepped

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def drop(self, sequence: Sequence) -> None:
        """Ends a sequence that nobody waits for any more."""
        for filling in [entry for entry in self._filling if entry.sequence is sequence]:
            self._filling.remove(filling)
            self._free(sequence)
        if sequence in self.rows:
            self._leave(self.rows.index(sequence))

    def clear(self) -> None:
        """Forgets all rows, after a failure."""
        self.rows, self._cache = [], RowCache()
        self._filling.clear()
        self._prefixes.clear()
        self._slots.free_all()

    def _read_these(self, prompts: list[Begun]) -> Iterator[list[Sequence]]:
        """Short prompts now, long ones in the steps to come."""
        short = [(sequence, shared) for sequence, shared in prompts if len(sequence.prompt) - shared.length <= CHUNK]
        for sequence, shared in prompts:
            if len(sequence.prompt) - shared.length > CHUNK:
                self._filling.append(Filling(sequence, begun([shared], shared.length), shared.length))
        yield from map(self._read, _gathered(short))

    def _read(self, group: list[Begun]) -> list[Sequence]:
        """Short prompts in one pass, behind the tokens that all of them share. Shorter ones are filled up behind their
        end, which no token before it sees."""
        sequences, done = [sequence for sequence, _ in group], min(shared.length for _, shared in group)
        cache = begun([shared for _, shared in group], done)
        rest = [sequence.prompt[done:] for sequence in sequences]
        longest = max(map(len, rest))
        ids = torch.tensor([part + [0] * (longest - len(part)) for part in rest], device=self._device)
        self.tokens += ids.numel()
        lasts = [len(part) - 1 for part in rest]
        with self._mixed(sequences), self._at(lasts):
            logits = self._model(input_ids=ids, past_key_values=cache, use_cache=True).logits
        logits = logits[:, 0] if logits.shape[1] == 1 else logits[range(len(rest)), lasts]
        return self._begin(sequences, cache, [len(sequence.prompt) for sequence in sequences], logits)

    def _read_virtual(self, sequence: Sequence) -> list[Sequence]:
        """A prompt behind an adapter's virtual tokens."""
        assert self._reads
        ids = torch.tensor([sequence.prompt], device=self._device)
        self.tokens += ids.numel()
        out = self._reads(input_ids=ids, use_cache=True)
        filled = out.past_key_values
        return self._begin([sequence], filled, [filled.get_seq_length()], out.logits[:, -1])

    def _read_on(self) -> list[Sequence]:
        if not self._filling:
            return []
        filling = self._filling[0]
        prompt, end = filling.sequence.prompt, filling.done + CHUNK
        ids = torch.tensor([prompt[filling.done : end]], device=self._device)
        self.tokens += ids.numel()
        with self._mixed([filling.sequence]):
            out = self._model(input_ids=ids, past_key_values=filling.cache, use_cache=True, logits_to_keep=1)
        filling.done = end
        if end < len(prompt):
            self._filling.rotate(-1)
            return []
        self._filling.popleft()
        return self._begin([filling.sequence], filling.cache, [len(prompt)], out.logits[:, -1])

    def _begin(self, group: list[Sequence], filled: Any, lengths: list[int], logits: Any) -> list[Sequence]:
        self._take(group, logits)
        for row, sequence in enumerate(() if self._reads else group):
            self._prefixes.keep(sequence, filled, row)
        for place, (sequence, length) in enumerate(zip(group, lengths, strict=True)):
            if sequence.ended:
                self._free(sequence)
            else:
                self._cache.join(filled, place, length)
                self.rows.append(sequence)
        return group

    def _take(self, rows: list[Sequence], logits: Any) -> None:
        for sequence, drawn in zip(rows, draw(logits, [row.sampling for row in rows]), strict=True):
            sequence.take(drawn)

    def _leave(self, row: int) -> None:
        gone = self.rows[row]
        self._cache.leave(row, poisoned=gone.refusal is not None)
        self.rows[row] = self.rows[-1]
        self.rows.pop()
        self._free(gone)

    def _free(self, sequence: Sequence) -> None:
        if sequence.adapter is not None:
            self._slots.free(sequence.adapter.id)

    @contextmanager
    def _at(self, places: list[int]) -> Iterator[None]:
        """Within, the head of the model sees one place of each row: logits of all are a fifth of a short pass."""
        rows, columns = torch.arange(len(places)), torch.tensor(places)
        head = self._model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, args: (args[0][rows, columns][:, None], *args[1:]))
        try:
            yield
        finally:
            hook.remove()

    def _mixed(self, rows: list[Sequence]) -> AbstractContextManager[None]:
        ids = [None if sequence.adapter is None else sequence.adapter.id for sequence in rows]
        return self._slots.mixed(ids) if any(id is not None for id in ids) else nullcontext()


def _gathered(prompts: list[Begun]) -> list[list[Begun]]:
    """Prompts that are read together: behind about as many shared tokens, about equally long, and not too many tokens
    with what fills them up."""
    found: list[list[Begun]] = []
    for alike in _alike(prompts):
        group: list[Begun] = []
        done = alike[0][1].length
        for sequence, shared in sorted(alike, key=lambda begun: len(begun[0].prompt)):
            if not group or (len(group) + 1) * (len(sequence.prompt) - done) > CHUNK:
                group = []
                found.append(group)
            group.append((sequence, shared))
    return found


def _alike(prompts: list[Begun]) -> list[list[Begun]]:
    """By how much they share, the least first: a pass more costs as much as the few tokens that some read anew."""
    found: list[list[Begun]] = []
    for sequence, shared in sorted(prompts, key=lambda begun: begun[1].length):
        if not found or shared.length > found[-1][0][1].length + LEAST:
            found.append([])
        found[-1].append((sequence, shared))
    return found


def _masks_are_4d(config: Any) -> bool:
    """Whether a mask may be given as attention gets it, which saves its making in every step: one kind of layer, no
    bias made of the mask (ALiBi)."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windows = getattr(config, "sliding_window", None) if "layer_types" not in config.to_dict() else None
    rotary = getattr(config, "rope_parameters", None) is not None
    return rotary and kinds == {"full_attention"} and not windows and config._attn_implementation == "sdpa"
