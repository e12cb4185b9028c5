"""`method:` what is learned from the data. One class a method; its trainer is in `ftlib/methods/`.

Besides its keys, a method says in plain words what it needs: `rows`, the kind of rows that `ftlib.data` makes for it,
and `head`, the model class that is trained; and what its evaluations give: `metrics`, and which of its keys they do not
survive (`moves`). Names and defaults of the keys are TRL's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ftlib.config.data import by_label
from ftlib.config.section import Section

Better = Literal["min", "max"]
Rows = Literal["answers", "text", "pairs", "judged", "prompts", "labelled"]
Head = Literal["causal_lm", "sequence_classification", "reward"]


class Method(Section):
    """What every method says of itself."""

    @property
    def rows(self) -> Rows:
        """The kind of rows it trains on, as `ftlib.data.prepare` knows them."""
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
        """What an evaluation gives that trials can be compared by, and which way is better; the usual one first."""
        return ANSWERS

    @property
    def metric(self) -> tuple[str, Better]:
        """What a sweep compares trials by, unless it says otherwise."""
        return next(iter(self.metrics.items()))

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        """Keys of the method's own that change what metrics mean: trials that differ in one cannot be compared by these."""
        return {}

    @property
    def has_zero_shot(self) -> bool:
        """Whether the untuned base has an evaluation that says something: not of a random head, nor beside itself."""
        return self.head == "causal_lm"


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
LOSS = ("eval_loss",)


class SFT(Method):
    """Supervised fine-tuning on instructions, chats or plain text."""

    type: Literal["sft"]
    """Supervised fine-tuning on instructions, chats or plain text."""


class Pretrain(Method):
    """Continued, or first, pretraining on raw text."""

    type: Literal["pretrain"]
    """Continued, or first, pretraining on raw text."""

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
    """A label for each text."""
    freeze: Literal["none", "encoder"] = "none"
    """encoder trains the head alone, on the model's features as they are."""
    class_weights: ClassWeights = "none"
    """How much each class counts: balanced weighs it by the inverse of its frequency; or a weight a label."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The share of each label that is spread over all classes."""

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
    for each in listed if isinstance(listed, list) else ():
        if each in METHODS_NOT_LOSSES:
            raise ValueError(f"'{each}' is a method of its own: use method: {{type: {METHODS_NOT_LOSSES[each]}}}")
    return listed


class DPO(Method):
    """Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290) and the losses that grew from it.

    Several `loss_type`s are summed, each with its weight of `loss_weights`.
    """

    type: Literal["dpo"]
    """Learn from pairs which answer is preferred, against the base as the reference."""
    beta: float = Field(default=0.1, gt=0)
    """How closely the model is held to the reference."""
    loss_type: Annotated[list[DPOLoss], BeforeValidator(_losses, json_schema_input_type=DPOLoss | list[DPOLoss])] = (
        Field(default=["sigmoid"], min_length=1)
    )
    """One loss, or several, which are summed."""
    loss_weights: list[float] | None = None
    """The weight of each loss of loss_type."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The share of pairs that may be the wrong way round."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """Which divergence from the reference is bounded."""
    precompute_ref_log_probs: bool = True
    """Compute the reference once a data set, and not at each step."""

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
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv:2402.01306): answers judged good or bad, unpaired."""

    type: Literal["kto"]
    """Learn from single answers that are judged good or bad."""
    beta: float = Field(default=0.1, gt=0)
    """How closely the model is held to the reference."""
    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """KTO's own loss, or APO-zero for single answers."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """How much good answers count."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """How much bad answers count."""
    precompute_ref_log_probs: bool = True
    """Compute the reference once a data set, and not at each step."""

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
    """Odds-ratio preference optimization (Hong et al. 2024, arXiv:2403.07691): SFT and preference in one, no reference."""

    type: Literal["orpo"]
    """Learn answers and preferences in one training, without a reference."""
    beta: float = Field(default=0.1, gt=0)
    """How much the preference counts beside the answers (lambda in the paper)."""

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
    """Simple preference optimization (Meng et al. 2024, arXiv:2405.14734): the mean log-probability of an answer's tokens
    is its reward, so no reference is needed. `simpo_gamma` is the margin by which the chosen answer must win; above 0,
    `cpo_alpha` adds so much of the chosen answers' cross-entropy (CPO-SimPO). The names are TRL's CPO trainer's, the
    default of `beta` the paper's."""

    type: Literal["simpo"]
    """Learn from pairs which answer is preferred, without a reference."""
    beta: float = Field(default=2.0, gt=0)
    """The scale of the reward, which is the mean log-probability of an answer's tokens."""
    simpo_gamma: float = Field(default=0.5, ge=0)
    """The margin by which the chosen answer must win."""
    cpo_alpha: float = Field(default=0.0, ge=0)
    """How much the chosen answers' own cross-entropy counts besides (CPO-SimPO)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The share of pairs that may be the wrong way round."""

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
    """A model that scores answers, learned from pairs."""
    center_rewards_coefficient: float | None = Field(default=None, gt=0)
    """How strongly scores are held around 0; 0.01 is usual."""

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


class RewardFunction(Section):
    """One reward of a completion. `function`: a built-in name or an import path `package.module:function` that TRL can
    call (prompts, completions and the row's columns as keywords; a list of floats comes back)."""

    function: str = Field(min_length=1)
    """A built-in reward (exact_match, regex, length), `model`, or package.module:function, or file.py:function."""
    weight: float = 1.0
    """How much it counts."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Given to a built-in reward: {pattern: "####"}."""

    @property
    def name(self) -> str:
        """By which it is logged: the built-in's, or the function's in its module."""
        return self.function.rpartition(":")[2]


def _named(value: Any) -> Any:
    return {"function": value} if isinstance(value, str) else value


class _Online(Method):
    """The model writes `num_generations` completions a prompt and is rewarded for them."""

    rewards: list[Annotated[RewardFunction, BeforeValidator(_named, json_schema_input_type=str | RewardFunction)]] = (
        Field(min_length=1)
    )
    """What completions are rewarded for."""
    num_generations: int = Field(default=8, ge=2)
    """Completions a prompt, which are compared with each other."""
    max_completion_length: int = Field(default=256, ge=1)
    """Tokens of a completion at most."""
    temperature: float = Field(default=1.0, gt=0)
    """How freely completions are drawn."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the likeliest tokens that have this share together."""
    num_iterations: int = Field(default=1, ge=1)
    """Optimizer steps on the same completions."""
    epsilon: float = Field(default=0.2, gt=0)
    """How far a step may go from the model that wrote the completions."""

    @property
    def rows(self) -> Rows:
        return "prompts"

    @property
    def passes(self) -> int:
        return self.num_generations

    @property
    def metrics(self) -> dict[str, Better]:
        """Not the loss of a policy gradient, which says nothing of how good the policy is."""
        each: dict[str, Better] = {f"eval_rewards/{reward.name}/mean": "max" for reward in self.rewards}
        return {"eval_reward": "max", **each}

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        """How completions are written and rewarded decides what the same weights get."""
        return dict.fromkeys(("rewards", "max_completion_length", "temperature", "top_p"), tuple(self.metrics))


class GRPO(_Online):
    """Group-relative policy optimization (Shao et al. 2024, arXiv:2402.03300)."""

    type: Literal["grpo"]
    """The model writes, is rewarded, and learns; each completion is compared with its group's mean."""
    beta: float = Field(default=0.0, ge=0)
    """How closely the model is held to the reference; 0: not at all, and none is kept."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """How the loss of tokens becomes one number."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Over what rewards are divided by their spread."""


class RLOO(_Online):
    """REINFORCE, each completion's baseline being the others' mean (Ahmadian et al. 2024, arXiv:2402.14740)."""

    type: Literal["rloo"]
    """The model writes, is rewarded, and learns; each completion is compared with the mean of the others."""
    beta: float = Field(default=0.05, ge=0)
    """How closely the model is held to the reference."""
    normalize_advantages: bool = False
    """Divide what is above or below the mean by its spread."""


class Distill(Method):
    """A student learns from a teacher (Hinton et al. 2015, arXiv:1503.02531).

    kind: `logit` matches the teacher's distribution, `feature` its hidden states, `relation` the distances and angles
    between examples, `sequence` its written completions, `self` an earlier generation of the same model (born-again),
    `on_policy` its distribution over the student's own completions.
    """

    type: Literal["distill"]
    """A student learns from a teacher."""
    kind: Literal["logit", "feature", "relation", "sequence", "self", "on_policy"] = "logit"
    """What is learned: its distribution (logit), its hidden states (feature), distances between examples (relation),
    its texts (sequence), an earlier generation of itself (self), its view of the student's texts (on_policy)."""
    task: Literal["language", "classify"] = "language"
    """A model that writes, or one that labels."""
    teacher: str = Field(min_length=1)
    """A model, registry:NAME, or for `sequence` an OpenAI-compatible URL."""
    teacher_revision: str | None = None
    """The teacher's revision on the Hub."""
    temperature: float = Field(default=1.0, gt=0)
    """logit: of both distributions; on_policy: of the student's writing too."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """The teacher's share of the loss; the labels' cross-entropy has the rest."""
    top_k: int | None = Field(default=64, ge=1)
    """How many of the teacher's logits are kept for each token; null keeps all."""
    layer_map: dict[int, int] | None = None
    """feature: the student's layer to the teacher's; null spreads them evenly."""
    distance_weight: float = Field(default=1.0, ge=0)
    """relation: how much distances count."""
    angle_weight: float = Field(default=2.0, ge=0)
    """relation: how much angles count."""
    beta: float = Field(default=0.5, ge=0, le=1)
    """on_policy: 0 is forward KL, 1 reverse KL, between them Jensen-Shannon."""
    max_completion_length: int = Field(default=256, ge=1)
    """sequence, on_policy: tokens of a text at most."""
    reasoning: bool = False
    """sequence: the teacher thinks aloud, and the student learns its steps too."""
    teacher_name: str | None = None
    """sequence over a URL: the model's name there."""

    @property
    def rows(self) -> Rows:
        if self.task == "classify":
            return "labelled"
        return "prompts" if self.kind == "on_policy" else "answers"

    @property
    def head(self) -> Head:
        return "sequence_classification" if self.task == "classify" else "causal_lm"

    @property
    def metrics(self) -> dict[str, Better]:
        """Of the labels alone, as without a teacher: no key of the distillation changes what they mean."""
        return CLASSES if self.task == "classify" else ANSWERS

    @property
    def remote(self) -> bool:
        """Whether the teacher is asked over the network."""
        return self.teacher.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _teacher_fits_kind(self) -> Distill:
        if self.remote and self.kind != "sequence":
            raise ValueError(f"a teacher at a URL only writes: use kind: sequence, or name a model for '{self.kind}'")
        if self.remote and self.teacher_name is None:
            raise ValueError("teacher is a URL, so teacher_name must say which model is asked there")
        return self

    @model_validator(mode="after")
    def _kind_fits_task(self) -> Distill:
        if self.task == "classify" and self.kind in ("sequence", "on_policy"):
            raise ValueError(f"kind '{self.kind}' needs a model that writes: use logit, feature, relation or self")
        return self


MethodSection = Annotated[
    SFT | Pretrain | Classify | DPO | KTO | ORPO | SimPO | Reward | GRPO | RLOO | Distill, Field(discriminator="type")
]
"""The union of all of them."""
