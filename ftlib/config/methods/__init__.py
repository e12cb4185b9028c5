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
        """Keys of the method's own that change what metrics mean: trials that differ in one cannot be compared by
        these."""
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
    """Supervised fine-tuning: the model learns the answers in instructions and chats, or plain text."""


class Pretrain(Method):
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


class RewardFunction(Section):
    """One reward of a completion. `function`: a built-in name or an import path `package.module:function` that TRL can
    call (prompts, completions and the row's columns as keywords; a list of floats comes back)."""

    function: str = Field(min_length=1)
    """A built-in reward (exact_match, regex, length), reward_model (a model that method reward has trained), or your
    own function: package.module:function or file.py:function."""
    weight: float = 1.0
    """The factor of this reward in the sum of all rewards."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the function. regex needs {pattern: }, and exact_match can have it. length needs {target: }
    in tokens. reward_model needs {model: }, a folder or registry:NAME."""

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
    """The functions that score a completion. Each is a name, or a mapping that also has its weight and its arguments.
    The scores are summed."""
    num_generations: int = Field(default=8, ge=2)
    """Completions that the model writes for each prompt. They are compared with each other. The completions of an
    optimizer step, and of an evaluation batch, are a multiple of it over all workers."""
    max_completion_length: int = Field(default=256, ge=1)
    """The most tokens of a completion."""
    temperature: float = Field(default=1.0, gt=0)
    """The temperature of sampling. A higher one makes completions more different."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens whose probabilities add up to this share. 1 samples from all tokens."""
    num_iterations: int = Field(default=1, ge=1)
    """How often the same completions are trained on before the model writes new ones."""
    epsilon: float = Field(default=0.2, gt=0)
    """The clipping range of the loss: the ratio of a completion's probability now to that at its writing counts from 1
    - epsilon to 1 + epsilon."""

    @property
    def rows(self) -> Rows:
        return "prompts"

    @property
    def passes(self) -> int:
        return self.num_generations

    @property
    def metrics(self) -> dict[str, Better]:
        """Not the loss of a policy gradient, which says nothing of how good the policy is."""
        means: dict[str, Better] = {f"eval_rewards/{reward.name}/mean": "max" for reward in self.rewards}
        return {"eval_reward": "max", **means}

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        """How completions are written and rewarded decides what the same weights get."""
        return dict.fromkeys(("rewards", "max_completion_length", "temperature", "top_p"), tuple(self.metrics))


class GRPO(_Online):
    """Group-relative policy optimization (Shao et al. 2024, arXiv:2402.03300)."""

    type: Literal["grpo"]
    """Group-relative policy optimization (arXiv:2402.03300): the model writes completions, is rewarded for them, and
    learns. Each completion is compared with the mean of those to the same prompt."""
    beta: float = Field(default=0.0, ge=0)
    """How strongly the model is held to the reference, the model before training. 0 does not hold it, and no reference
    is in memory."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    """How the losses of tokens become one number, by TRL's names."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What rewards are divided by: their standard deviation over the completions of a prompt (group) or of a batch
    (batch), or nothing (none)."""


class RLOO(_Online):
    """REINFORCE, each completion's baseline being the others' mean (Ahmadian et al. 2024, arXiv:2402.14740)."""

    type: Literal["rloo"]
    """REINFORCE leave-one-out (arXiv:2402.14740): the model writes completions, is rewarded for them, and learns. Each
    completion is compared with the mean of the others to the same prompt."""
    beta: float = Field(default=0.05, ge=0)
    """How strongly the model is held to the reference, the model before training. 0 does not hold it, and no reference
    is in memory."""
    normalize_advantages: bool = False
    """Shift and scale the advantages of a batch to mean 0 and standard deviation 1."""


class Distill(Method):
    """A student learns from a teacher (Hinton et al. 2015, arXiv:1503.02531).

    kind: `logit` matches the teacher's distribution, `feature` its hidden states, `relation` the distances and angles
    between examples, `sequence` its written completions, `self` an earlier generation of the same model (born-again),
    `on_policy` its distribution over the student's own completions.
    """

    type: Literal["distill"]
    """Distillation (arXiv:1503.02531): the model, the student, learns from a teacher."""
    kind: Literal["logit", "feature", "relation", "sequence", "self", "on_policy"] = "logit"
    """What the student learns: the teacher's distribution over tokens (logit), its hidden states (feature), the
    relations between examples (relation), its completions (sequence), an earlier generation of the student (self), or
    its distribution over the student's completions (on_policy)."""
    task: Literal["language", "classify"] = "language"
    """language for a student that writes, classify for a student that labels."""
    teacher: str = Field(min_length=1)
    """The teacher: a name on the Hub, a folder, the directory of a trial, or registry:NAME. For kind sequence also the
    URL of an OpenAI-compatible server, http://HOST/v1, whose key is in OPENAI_API_KEY."""
    teacher_revision: str | None = None
    """The branch, tag or commit of the teacher on the Hub. null is its main branch."""
    temperature: float = Field(default=1.0, gt=0)
    """For kinds logit and self: the temperature of both distributions. For kind on_policy: also that of sampling the
    student's completions."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """For kinds logit, self, feature and relation: the teacher's share of the loss. The cross-entropy of the labels has
    the rest."""
    top_k: int | None = Field(default=64, ge=1)
    """For kinds logit and self with task: language: how many of the teacher's likeliest tokens are kept at each
    position. All other tokens are one more class. null keeps all."""
    layer_map: dict[int, int] | None = None
    """For kind feature: the student's layers and the teacher's layers that they learn, {2: 4, 4: 8}. Both count from 1.
    null spreads the layers evenly."""
    distance_weight: float = Field(default=1.0, ge=0)
    """For kind relation: the weight of the distances between examples."""
    angle_weight: float = Field(default=2.0, ge=0)
    """For kind relation: the weight of the angles between examples."""
    beta: float = Field(default=0.5, ge=0, le=1)
    """For kind on_policy: 0 is the forward KL divergence, 1 is the reverse one, and a value between them is a
    Jensen-Shannon divergence."""
    max_completion_length: int = Field(default=256, ge=1)
    """For kinds sequence and on_policy: the most tokens of a completion."""
    reasoning: bool = False
    """For kind sequence: the teacher is asked for its steps before the answer, and the student learns the steps too."""
    teacher_name: str | None = None
    """For kind sequence with a URL: the name of the model on that server."""

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
