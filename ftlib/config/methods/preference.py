"""The methods that learn which answers people prefer: DPO, KTO, ORPO, SimPO, and the reward model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftlib.config.methods.base import LOSS, PREFERENCES, SCALED, Better, Head, Method, Rows

DPOLoss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
]

# What other tools call a loss of DPO, and is a method of its own here.
METHODS_NOT_LOSSES = {"simpo": "simpo", "orpo": "orpo", "kto": "kto", "kto_pair": "kto"}


def _losses(value: Any) -> Any:
    listed = [value] if isinstance(value, str) else value
    for loss in listed if isinstance(listed, list) else ():
        if loss in METHODS_NOT_LOSSES:
            raise ValueError(f"'{loss}' is a method of its own: use method: {{type: {METHODS_NOT_LOSSES[loss]}}}")
    return listed


class DPO(Method):
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290) and the losses that grew from it.

    Several `loss_type`s are summed, each with its weight of `loss_weights`.
    """

    type: Literal["dpo"]
    """Direct preference optimization (arXiv:2305.18290): the model learns from pairs which answer is preferred. The
    reference is the model before training."""
    beta: float = Field(default=0.1, gt=0)
    """How strongly the model is held to the reference. A larger value lets it move less."""
    loss_type: Annotated[list[DPOLoss], BeforeValidator(_losses, json_schema_input_type=DPOLoss | list[DPOLoss])] = (
        Field(default=["sigmoid"], min_length=1)
    )
    """The loss, by TRL's names. The losses of a list are summed."""
    loss_weights: list[float] | None = None
    """The weight of each loss in loss_type, in the same order. null gives each loss the weight 1."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The probability that the two answers of a pair are the wrong way round. The losses robust, exo_pair, aot and
    aot_unpaired use it."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """The divergence by which the distance to the reference is measured (f-DPO, arXiv:2309.16240)."""
    precompute_ref_log_probs: bool = True
    """Compute the reference's log-probabilities once for a base and a data set, and keep them for all trials. false
    computes them at each step."""

    @model_validator(mode="after")
    def _a_weight_a_loss(self) -> DPO:
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss_type):
            raise ValueError(
                f"loss_weights has {len(self.loss_weights)} values for {len(self.loss_type)} loss_type: give one each"
            )
        return self

    @model_validator(mode="after")
    def _losses_fit(self) -> DPO:
        if "exo_pair" in self.loss_type and not self.label_smoothing:
            raise ValueError("loss_type 'exo_pair' needs label_smoothing above 0: its paper recommends 0.001")
        by_difference = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
        others = [loss for loss in self.loss_type if loss not in by_difference]
        if others and self.f_divergence_type != "reverse_kl":
            raise ValueError(
                f"f_divergence_type '{self.f_divergence_type}' does not fit loss_type '{others[0]}': use reverse_kl"
            )
        return self

    @property
    def rows(self) -> Rows:
        return "pairs"

    @property
    def metrics(self) -> dict[str, Better]:
        return PREFERENCES

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        return {"beta": SCALED} | dict.fromkeys(
            ("loss_type", "loss_weights", "label_smoothing", "f_divergence_type"), LOSS
        )

    @property
    def has_zero_shot(self) -> bool:
        return False  # it would be compared with itself: ln 2, whatever it is


class KTO(Method):
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306): answers judged good or bad,
    unpaired."""

    type: Literal["kto"]
    """Kahneman-Tversky optimization (arXiv:2402.01306): the model learns from single answers that are judged good or
    bad. The reference is the model before training."""
    beta: float = Field(default=0.1, gt=0)
    """How strongly the model is held to the reference. A larger value lets it move less."""
    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """The loss, by TRL's names. kto is the paper's, and apo_zero_unpaired is APO-zero for single answers."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """The weight of good answers in the loss."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """The weight of bad answers in the loss."""
    precompute_ref_log_probs: bool = True
    """Compute the reference's log-probabilities once for a base and a data set, and keep them for all trials. false
    computes them at each step."""

    @property
    def rows(self) -> Rows:
        return "judged"

    @property
    def metrics(self) -> dict[str, Better]:
        return PREFERENCES

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        return {"beta": SCALED} | dict.fromkeys(("loss_type", "desirable_weight", "undesirable_weight"), LOSS)

    @property
    def has_zero_shot(self) -> bool:
        return False  # as of DPO


class ORPO(Method):
    """Odds-ratio preference optimization (Hong et al. 2024, arXiv:2403.07691): SFT and preference in one, no
    reference."""

    type: Literal["orpo"]
    """Odds-ratio preference optimization (arXiv:2403.07691): the model learns the answers and the preferences in one
    training, without a reference."""
    beta: float = Field(default=0.1, gt=0)
    """The weight of the preferences in the loss, beside the cross-entropy of the chosen answers. The paper calls it
    lambda."""

    @property
    def rows(self) -> Rows:
        return "pairs"

    @property
    def metrics(self) -> dict[str, Better]:
        return {**PREFERENCES, "eval_nll_loss": "min", "eval_log_odds_chosen": "max"}

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        return {"beta": SCALED}


class SimPO(Method):
    """Simple preference optimization (Meng et al. 2024, arXiv:2405.14734): the mean log-probability of an answer's
    tokens is its reward, so no reference is needed. `simpo_gamma` is the margin by which the chosen answer must win;
    above 0, `cpo_alpha` adds so much of the chosen answers' cross-entropy (CPO-SimPO). The names are TRL's CPO
    trainer's, the default of `beta` the paper's."""

    type: Literal["simpo"]
    """Simple preference optimization (arXiv:2405.14734): the model learns from pairs which answer is preferred, without
    a reference."""
    beta: float = Field(default=2.0, gt=0)
    """The scale of an answer's reward. The reward is beta times the mean log-probability of the answer's tokens."""
    simpo_gamma: float = Field(default=0.5, ge=0)
    """The margin by which the chosen answer's reward must be the larger one."""
    cpo_alpha: float = Field(default=0.0, ge=0)
    """The weight of the chosen answers' cross-entropy, which is added to the loss (CPO-SimPO)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The probability that the two answers of a pair are the wrong way round."""

    @property
    def rows(self) -> Rows:
        return "pairs"

    @property
    def metrics(self) -> dict[str, Better]:
        return {**PREFERENCES, "eval_nll_loss": "min"}

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        return {"beta": SCALED} | dict.fromkeys(("simpo_gamma", "cpo_alpha", "label_smoothing"), LOSS)


class Reward(Method):
    """A reward model from preferences (Bradley-Terry), for `grpo` and `rloo` to train against."""

    type: Literal["reward"]
    """Reward model: the model learns from pairs to score answers. Methods grpo and rloo can train against it."""
    center_rewards_coefficient: float | None = Field(default=None, gt=0)
    """How strongly the scores are held around 0. TRL recommends 0.01. null does not hold them."""

    @property
    def rows(self) -> Rows:
        return "pairs"

    @property
    def head(self) -> Head:
        return "reward"

    @property
    def metrics(self) -> dict[str, Better]:
        return {"eval_loss": "min", "eval_accuracy": "max", "eval_margin": "max"}

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        return {"center_rewards_coefficient": LOSS}
