"""Whether an artifact still is what was trained, told by the program that will run it.

The probes are those of the promotion gate. The yardstick is what the tune itself does to their logits: with b the
base's logits, t the tuned model's and x the artifact's,

    apart   |x - t| / |t|                     how far the artifact is from what was trained
    effect  |b - t| / |t|                     how far the base is
    kept    <x - b, t - b> / |t - b|^2        the share of the tune that the artifact has: 1 all of it, 0 none

Rounding is no part of the tune, and stands about at right angles to it: `kept` stays near 1 where a format rounds more
than the tune does, and falls where a format has lost a part of the tune (a half, where alpha over rank was 2 and is 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ftlib.errors import FtlibError
from ftlib.export.layers import Layers
from ftlib.registry.agreement import Logits, Probes, apart, check_finite, short

LEAST_KEPT, MOST_KEPT = 0.8, 1.25  # of the tune
NEAR = 0.5  # of the effect: a format that does not round weights must be at least so much nearer than the base is


@dataclass(frozen=True)
class Reading:
    """How a program reads text. A field is None where the program has nothing to say of it.

    `template` is the chat template, `tokens` are those of some texts, `ends` the tokens that end an answer, `tied` says
    whether one matrix is both embedding and output.
    """

    template: str | None = None
    tokens: Sequence[list[int]] | None = None
    ends: frozenset[int] | None = None
    tied: bool | None = None


@dataclass(frozen=True)
class Trained:
    """What was trained. `untuned` are its base's logits, None where there is no base to compare with.

    `width` is how many numbers a position must have at least: the tokens of the tokenizer, or the classes. `tolerance`
    is how far rounding in the dtype of training moves logits. `layers` is what its linear layers make of a vector.
    """

    probes: Probes
    source: str  # of the probes, for a person
    texts: Sequence[str]
    untuned: Logits | None
    tuned: Logits
    width: int
    tolerance: float
    reading: Reading
    layers: Layers = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """How far the logits may be `apart`. `rounds` says that the format rounds weights to a few bits."""

    apart: float
    rounds: bool = False


@dataclass(frozen=True)
class Agreement:
    """How an artifact's logits stand to what was trained. `tokens` is the share of positions with the same likeliest
    token, `decided` that of the positions where the base's is another than the tuned model's (None: there are none)."""

    apart: float
    effect: float | None
    kept: float | None
    tokens: float
    decided: float | None

    def to_json(self) -> dict[str, Any]:
        return {name: None if value is None else short(value) for name, value in vars(self).items()}


def agreement(trained: Trained, exported: Logits) -> Agreement:
    """Compares an artifact's logits on the probes with the trained ones. Programs pad a vocabulary differently: the
    numbers that all have are compared."""
    width = min(tensor.shape[-1] for tensor in (*exported, *trained.tuned, *(trained.untuned or ())))
    ours, tuned = _cut(exported, width), _cut(trained.tuned, width)
    chosen, wanted = _choices(ours), _choices(tuned)
    tokens = float((chosen == wanted).float().mean())
    if trained.untuned is None:
        return Agreement(apart(ours, tuned), None, None, tokens, None)
    untuned = _cut(trained.untuned, width)
    moved = wanted != _choices(untuned)
    decided = float((chosen == wanted)[moved].float().mean()) if moved.any() else None
    return Agreement(apart(ours, tuned), apart(untuned, tuned), _kept(ours, untuned, tuned), tokens, decided)


def check_logits(trained: Trained, exported: Logits, limits: Limits, owner: str) -> Agreement:
    """Raises FtlibError, with the figures, for an artifact that lost the tune."""
    check_finite(exported, owner)
    for ours, wanted in zip(exported, trained.tuned, strict=True):
        if ours.shape[:-1] != wanted.shape[:-1] or ours.shape[-1] < trained.width:
            raise FtlibError(
                f"{owner}: its logits are {tuple(ours.shape)}, and the trained ones {tuple(wanted.shape)}."
            )
    found = agreement(trained, exported)
    if not found.apart <= limits.apart:
        raise FtlibError(
            f"{owner} is not what was trained: on {trained.source} its logits are {found.apart:.2g} of their size "
            f"apart from it, where this format gives at most {limits.apart:g}{_beside(found)}."
        )
    if found.kept is not None and found.effect is not None:
        if not LEAST_KEPT <= found.kept <= MOST_KEPT:
            raise FtlibError(
                f"{owner} has lost the tune: on {trained.source} it has {found.kept:.0%} of what the tune does to the "
                f"logits{_beside(found)}."
            )
        if not limits.rounds and found.apart > NEAR * found.effect:
            raise FtlibError(
                f"{owner} has lost the tune in rounding: on {trained.source} its logits are {found.apart:.2g} of their "
                f"size apart from what was trained, and the base's are {found.effect:.2g}: export it with more bits "
                "(--dtype float32)."
            )
    return found


def check_reading(trained: Reading, exported: Reading, owner: str) -> None:
    """Raises FtlibError for an artifact that reads text otherwise than training did, or never ends its answers."""
    if exported.tied is not None and trained.tied is not None and exported.tied != trained.tied:
        was, is_ = ("tied", "two matrices") if trained.tied else ("two matrices", "tied")
        raise FtlibError(f"{owner}: its embedding and its output were {was} in training, and are {is_} now.")
    if trained.template is not None and _lines(exported.template) != _lines(trained.template):
        state = "it has none" if exported.template is None else "it has another"
        raise FtlibError(
            f"{owner} has lost the chat template of its training: {state}, so chats would be read otherwise."
        )
    for ours, wanted in zip(exported.tokens or (), trained.tokens or (), strict=False):
        if ours != wanted:
            place = next((n for n, pair in enumerate(zip(ours, wanted, strict=False)) if len(set(pair)) > 1), len(ours))
            raise FtlibError(
                f"{owner} cuts text into other tokens than training did: from token {place} on it reads "
                f"{ours[place : place + 4]}, and training {wanted[place : place + 4]}."
            )
    lost = sorted((trained.ends or frozenset()) - (exported.ends or frozenset()))
    if exported.ends is not None and lost:
        raise FtlibError(f"{owner}: token {lost[0]} ended the answers in training, and does not end them now.")


def _kept(exported: Logits, untuned: Logits, tuned: Logits) -> float:
    """The projection on the tune of all probes together."""
    along = norm = 0.0
    for x, b, t in zip(exported, untuned, tuned, strict=True):
        tune = (t - b).double()
        along += float(((x - b).double() * tune).sum())
        norm += float(tune.square().sum())
    return along / norm if norm else 0.0


def _choices(logits: Logits) -> torch.Tensor:
    return torch.cat([tensor.argmax(-1).reshape(-1) for tensor in logits])


def _cut(logits: Logits, width: int) -> Logits:
    return [tensor[..., :width] for tensor in logits]


def _beside(found: Agreement) -> str:
    """What else is known, for whoever looks for the fault."""
    if found.effect is None or found.kept is None:
        return ""
    return (
        f" (the base is {found.effect:.2g} apart; {found.kept:.0%} of the tune is kept; {found.tokens:.0%} of the "
        "likeliest tokens are the same)"
    )


def _lines(template: str | None) -> list[str] | None:
    """A file's line ends may change, and a blank end."""
    return None if template is None else template.rstrip().splitlines()
