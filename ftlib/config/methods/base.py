"""What every method says of itself, and the numbers that evaluations give."""

from __future__ import annotations

from typing import Literal

from ftlib.config.section import Section

Better = Literal["min", "max"]
Rows = Literal["answers", "text", "pairs", "judged", "prompts", "labelled"]
Head = Literal["causal_lm", "sequence_classification", "reward"]


class Method(Section):
    """What every method says of itself."""

    @property
    def rows(self) -> Rows:
        """The kind of rows that the method trains on (`ftlib.data.kinds`)."""
        return "answers"

    @property
    def head(self) -> Head:
        """What stands on top of the model's body."""
        return "causal_lm"

    @property
    def passes(self) -> int:
        """How many rows of a batch one row of the data fills."""
        return 1

    @property
    def metrics(self) -> dict[str, Better]:
        """The numbers of an evaluation that trials can be compared by, and whether lower or higher is better. The usual
        one comes first."""
        return ANSWERS

    @property
    def metric(self) -> tuple[str, Better]:
        """The number that a sweep compares trials by, unless `sweep.metric` names another."""
        return next(iter(self.metrics.items()))

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        """Keys of the method that change what a metric means, and those metrics. Trials that differ in such a key
        cannot be compared by these metrics."""
        return {}

    @property
    def trains(self) -> bool:
        """Whether a trial makes optimizer steps."""
        return True

    @property
    def has_zero_shot(self) -> bool:
        """Whether an evaluation of the untuned base says something. It says nothing of a random head, and nothing where
        the base would be compared with itself."""
        return self.head == "causal_lm"


BITS = "eval_bits_per_byte"  # the loss on a text as bits for each of its bytes: no tokenizer's tokens are counted
TEXTS: dict[str, Better] = {"eval_loss": "min", "eval_mean_token_accuracy": "max", BITS: "min"}
ANSWERS: dict[str, Better] = {"eval_loss": "min", "eval_mean_token_accuracy": "max"}
CLASSES: dict[str, Better] = {"eval_loss": "min", "eval_accuracy": "max", "eval_f1_macro": "max"}
PREFERENCES: dict[str, Better] = {
    "eval_loss": "min",
    "eval_rewards/accuracies": "max",  # the only one of the rewards that no beta scales
    "eval_rewards/margins": "max",
    "eval_rewards/chosen": "max",
    "eval_rewards/rejected": "min",
    "eval_logps/chosen": "max",
    "eval_logps/rejected": "min",
}
SCALED = ("eval_loss", "eval_rewards/margins", "eval_rewards/chosen", "eval_rewards/rejected")  # by beta
SHARES = ("eval_accuracy", "eval_mean_token_accuracy", "eval_rewards/accuracies")  # of rows or tokens
LOSS = ("eval_loss",)
