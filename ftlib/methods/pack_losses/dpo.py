"""Direct preference optimization and the losses that grew from it, as TRL 1.16's DPOTrainer computes them.

The reference is the frozen base, and its log-probabilities are read from the cache: they were computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftlib.methods.pack_losses.base import Objective, Scored, Split, Tokens
from ftlib.methods.table import Table, mean
from ftlib.models.to_device import sent


@dataclass(frozen=True)
class Pairs:
    """What the losses see of a batch of pairs: log-ratios to the reference, and the scores that f makes of them."""

    chosen: Tensor  # [pairs] log p(chosen) - log p_ref(chosen)
    rejected: Tensor
    chosen_score: Tensor
    rejected_score: Tensor
    chosen_tokens: Tensor  # [pairs]
    rejected_tokens: Tensor
    chosen_nll: Tensor  # [] mean over the chosen answers' tokens
    margin: Tensor  # [pairs] log p(chosen) - log p(rejected)
    reference_margin: Tensor
    beta: float
    smoothing: float

    @classmethod
    def of(cls, columns: Table, method: Any) -> Pairs:
        """Of log-probabilities under the model and under the reference, and of the answers' tokens."""
        chosen, rejected = columns["chosen"], columns["rejected"]
        reference = columns["reference_chosen"], columns["reference_rejected"]
        ratios = chosen - reference[0], rejected - reference[1]
        kind = method.f_divergence_type
        return cls(
            chosen=ratios[0],
            rejected=ratios[1],
            chosen_score=_score(ratios[0], kind),
            rejected_score=_score(ratios[1], kind),
            chosen_tokens=columns["chosen_tokens"],
            rejected_tokens=columns["rejected_tokens"],
            chosen_nll=-chosen.sum() / columns["chosen_tokens"].sum(),
            margin=chosen - rejected,
            reference_margin=reference[0] - reference[1],
            beta=method.beta,
            smoothing=method.label_smoothing,
        )

    @property
    def delta(self) -> Tensor:
        return self.chosen_score - self.rejected_score

    @property
    def delta_a_token(self) -> Tensor:
        return self.chosen_score / self.chosen_tokens - self.rejected_score / self.rejected_tokens

    def smoothed(self, delta: Tensor) -> Tensor:
        """-log sigmoid, with a share of `smoothing` for the other order."""
        scaled = self.beta * delta
        return -logsigmoid(scaled) * (1 - self.smoothing) - logsigmoid(-scaled) * self.smoothing


def _exo(p: Pairs) -> Tensor:
    scaled = p.beta * p.delta
    likely, unlikely = logsigmoid(scaled), logsigmoid(-scaled)
    return scaled.sigmoid() * (likely - math.log1p(-p.smoothing)) + (-scaled).sigmoid() * (
        unlikely - math.log(p.smoothing)
    )


def _nca(p: Pairs) -> Tensor:
    good, bad = p.beta * p.chosen, p.beta * p.rejected
    return -logsigmoid(good) - 0.5 * logsigmoid(-good) - 0.5 * logsigmoid(-bad)


def _robust(p: Pairs) -> Tensor:
    scaled = p.beta * p.delta
    clean, flipped = -(1 - p.smoothing) * logsigmoid(scaled), -p.smoothing * logsigmoid(-scaled)
    return (clean - flipped) / (1 - 2 * p.smoothing)


def _discopop(p: Pairs, tau: float = 0.05) -> Tensor:
    logits = p.beta * p.delta
    share = torch.sigmoid(logits / tau)
    return -logsigmoid(logits) * (1 - share) + torch.exp(-logits) * share


LOSSES: dict[str, Callable[[Pairs], Tensor]] = {
    "sigmoid": lambda p: -logsigmoid(p.beta * p.delta),
    "sigmoid_norm": lambda p: -logsigmoid(p.beta * p.delta_a_token),
    "hinge": lambda p: torch.relu(1 - p.beta * p.delta),
    "ipo": lambda p: (p.delta_a_token - 1 / (2 * p.beta)) ** 2,
    "exo_pair": _exo,
    "nca_pair": _nca,
    "robust": _robust,
    "bco_pair": lambda p: -logsigmoid(p.beta * p.chosen) - logsigmoid(-p.beta * p.rejected),
    "sppo_hard": lambda p: (p.chosen - 0.5 / p.beta) ** 2 + (p.rejected + 0.5 / p.beta) ** 2,
    "aot": lambda p: p.smoothed(p.margin.sort().values - p.reference_margin.sort().values),
    "aot_unpaired": lambda p: p.smoothed(p.chosen.sort().values - p.rejected.sort().values),
    "apo_zero": lambda p: 1 - torch.sigmoid(p.beta * p.chosen) + torch.sigmoid(p.beta * p.rejected),
    "apo_down": lambda p: torch.sigmoid(p.beta * p.chosen) + 1 - torch.sigmoid(p.beta * (p.chosen - p.rejected)),
    "discopop": _discopop,
    "sft": lambda p: p.chosen_nll.expand(len(p.chosen)),
}


def _score(ratios: Tensor, divergence: str) -> Tensor:
    """f'(t) at t = exp(ratios), up to a constant (Wang et al. 2023, arXiv:2309.16240)."""
    if divergence == "reverse_kl":
        return ratios
    if divergence == "forward_kl":
        return 1 - torch.exp(-ratios)
    if divergence == "js_divergence":
        return math.log(2) + logsigmoid(ratios)
    # alpha-divergence at TRL's default coefficient
    return 1.0 / (0.5 - 1.0) * (torch.exp(torch.clamp((0.5 - 1.0) * ratios, max=80.0)) - 1.0)


class DPO(Objective):
    """Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`; all chosen sequences come before all rejected ones."""

    adapter_dropout = False

    def __init__(self, experiment: Any, data: Any, references: Any) -> None:
        super().__init__(experiment, data)
        self.references = references  # what the base says: log p_ref of the chosen and of the rejected answer

    def tokens(self, split: Split, rows: Sequence[int]) -> list[Tokens]:
        found = [self.row(split, number) for number in rows]
        return [
            Tokens.answer(row["prompt_ids"], row[f"{kind}_ids"]) for kind in ("chosen", "rejected") for row in found
        ]

    def columns(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        """What a batch's pairs say, each [pairs]."""
        chosen, rejected = scored.sums().chunk(2)
        known = self.references.of(split, "pairs", lambda some: self.tokens(split, some), rows, self.soon(split))
        reference = sent(known, chosen.device)
        chosen_tokens, rejected_tokens = scored.counts.chunk(2)
        return {
            "chosen": chosen,
            "rejected": rejected,
            "reference_chosen": reference[:, 0],
            "reference_rejected": reference[:, 1],
            "chosen_tokens": chosen_tokens,
            "rejected_tokens": rejected_tokens,
        }

    def loss(self, scored: Scored, split: Split, rows: Sequence[int], items: int | None) -> Tensor:
        return losses(Pairs.of(self.columns(scored, split, rows), self.method), self.method).mean()

    def evaluate(self, scored: Scored, split: Split, rows: Sequence[int]) -> Table:
        return self.columns(scored, split, rows)

    def summary(self, table: Table) -> dict[str, float]:
        return summary(table, self.method)


def losses(pairs: Pairs, method: Any) -> Tensor:
    """[pairs]: the weighted sum of the method's losses."""
    weights = method.loss_weights or [1.0] * len(method.loss_type)
    kinds = zip(method.loss_type, weights, strict=True)
    return torch.stack([LOSSES[kind](pairs) * weight for kind, weight in kinds]).sum(0)


def summary(table: Table, method: Any) -> dict[str, float]:
    """The loss of all pairs as one batch (some losses compare the pairs of a batch), and the rewards by TRL's names."""
    pairs = Pairs.of(table, method)
    return {
        "loss": mean(losses(pairs, method)),
        **rewards(pairs.beta * pairs.chosen, pairs.beta * pairs.rejected),
        "logps/chosen": mean(table["chosen"]),
        "logps/rejected": mean(table["rejected"]),
    }


def rewards(chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    """The rewards of pairs, by TRL's names."""
    return {
        "rewards/chosen": mean(chosen),
        "rewards/rejected": mean(rejected),
        "rewards/accuracies": mean((chosen > rejected).double()),
        "rewards/margins": mean(chosen - rejected),
    }


def make(experiment: Any, data: Any, base: Any) -> DPO:
    """The objective of a DPO trial."""
    return DPO(experiment, data, base.references)
