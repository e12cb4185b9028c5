"""The methods whose model writes completions and is rewarded for them: GRPO, RLOO."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ftlib.config.methods.base import Better, Method, Rows
from ftlib.config.section import Section


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
        """The name under which the reward is logged: of the built-in, or of the function in its module."""
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
        """The means of the rewards. The loss of a policy gradient is left out, because it does not say how good the
        policy is."""
        means: dict[str, Better] = {f"eval_rewards/{reward.name}/mean": "max" for reward in self.rewards}
        return {"eval_reward": "max", **means}

    @property
    def moves(self) -> dict[str, tuple[str, ...]]:
        """The keys that decide how completions are written and rewarded. They change the rewards that the same weights
        get."""
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
