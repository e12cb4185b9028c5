"""The methods that learn from answers, texts or labels: SFT, pretraining, classification."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from ftlib.config.data import by_label
from ftlib.config.methods.base import CLASSES, LOSS, TEXTS, Better, Head, Method, Rows
from ftlib.config.section import Section


class EWC(Section):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796): weights that old rows need stay near
    those of the base. It needs the old rows before training alone; `data.replay` trains on them."""

    weight: float = Field(gt=0)
    """How strongly the weights are held. The training loss has weight / 2 times the sum, over all weights, of the
    squared way from the base times how much the old rows need the weight (its Fisher information). Sweep it on a log
    scale."""
    data: str = Field(min_length=1)
    """A file with old rows: what the model should not forget. It is read as data.train is."""
    rows: int = Field(default=256, ge=1)
    """How many old rows are looked at, from the beginning of the file. Each takes a forward and a backward pass."""


class _Language(Method):
    """What the methods that learn tokens share."""

    router_aux_loss_coef: float | None = Field(default=None, ge=0)
    """The weight of the loss that keeps the experts of a mixture equally busy. null is TRL's choice, the one in the
    model's config. 0 leaves that loss out. Other models have no such loss, and take null or 0."""

    @property
    def metrics(self) -> dict[str, Better]:
        return TEXTS


class SFT(_Language):
    """Supervised fine-tuning on instructions, chats or plain text."""

    type: Literal["sft"]
    """Supervised fine-tuning: the model learns the answers in instructions and chats, or plain text."""
    loss_type: Literal["nll", "dft"] = "nll"
    """nll is the negative log-likelihood of the answers. dft (dynamic fine-tuning, arXiv:2508.05629) weighs each token
    by its probability, so that rare tokens pull less. eval_loss is nll in both."""
    ewc: EWC | None = None
    """Hold weights that old rows need near those of the base (EWC, arXiv:1612.00796). null holds none."""


class Pretrain(_Language):
    """Continued, or first, pretraining on raw text."""

    type: Literal["pretrain"]
    """Pretraining: the model learns raw text. It continues from its saved weights, or begins with random ones
    (model.init: random)."""

    @property
    def rows(self) -> Rows:
        return "text"


def _kind_of_weights(value: Any) -> str:
    """Names in brackets are left out of the path in a message."""
    return "[labels]" if isinstance(value, dict) else "[word]"


ClassWeights = Annotated[
    Annotated[Literal["none", "balanced"], Tag("[word]")]
    | Annotated[dict[str, float], BeforeValidator(by_label), Tag("[labels]")],
    Discriminator(_kind_of_weights),
]


class Classify(Method):
    """Sequence classification. `freeze: encoder` trains the head alone (feature extraction); `class_weights: balanced`
    weighs each class by the inverse of its frequency."""

    type: Literal["classify"]
    """Classification: the model learns a label for each text."""
    freeze: Literal["none", "encoder"] = "none"
    """encoder trains only the classification head, and the rest of the model stays as it is. It needs adapter: null.
    none freezes nothing."""
    class_weights: ClassWeights = "none"
    """How much each class counts in the loss. none counts all alike. balanced weighs a class by the inverse of its
    frequency. A mapping gives weights to labels, {spam: 5}; labels that it does not name have 1."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The share of each label that the loss spreads evenly over all classes."""

    @property
    def rows(self) -> Rows:
        return "labelled"

    @property
    def head(self) -> Head:
        return "sequence_classification"

    @property
    def metrics(self) -> dict[str, Better]:
        return CLASSES

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        return {"class_weights": LOSS, "label_smoothing": LOSS}
