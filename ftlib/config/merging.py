"""How several models become one: what `ftlib merge` is told.

Adapters are merged as PEFT merges them (`LoraModel.add_weighted_adapter`), and its names are used here. There is one
difference: PEFT's `linear` adds up the A's and the B's apart, and the product has terms of one adapter's A with
another's B, which nobody has learned. `linear` here is the sum of what the adapters compute (PEFT calls it `cat`).
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from ftlib.config.section import Section

MergeMethod = Literal[
    "linear",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
    "slerp",
    "task_arithmetic",
]
OF_MODELS = ("linear", "slerp", "task_arithmetic")  # whole models; all but the last two of these are of adapters
OF_ADAPTERS = (
    *("linear", "svd", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd"),
    *("magnitude_prune", "magnitude_prune_svd"),
)
PRUNING = ("ties", "dare", "magnitude")  # how the names of methods begin that keep a part of the numbers alone
ANY_RANK = ("linear", "svd")  # how the names of methods end that take adapters of different ranks
DENSITY = 0.5
SEED = 42


class Merging(Section):
    """Models that become one, and how.

    Methods: `linear` is the weighted sum (of whole models: model soups, arXiv:2203.05482), `svd` the same at the
    largest rank of the adapters, `ties` arXiv:2306.01708, `dare_linear` and `dare_ties` arXiv:2311.03099,
    `magnitude_prune` the sum of the largest numbers. These compute on A and on B apart; with `_svd` behind the name
    they compute on the adapters' products, which takes an SVD of each layer. `slerp` goes along the arc between two
    models (Shoemake 1985), `task_arithmetic` adds to `base` what each model has learned since (arXiv:2212.04089).
    """

    models: list[str]
    """The models: registry:NAME[@N], a run (its best trial), RUN/trials/ID, or a folder."""
    method: MergeMethod
    """How they are merged."""
    weights: list[float] = Field(default_factory=list)
    """A number for each model. None given: all count alike, and add up to 1."""
    density: float | None = Field(default=None, gt=0, lt=1)
    """The share of numbers that ties, dare and magnitude_prune keep. Default: 0.5."""
    seed: int | None = Field(default=None, ge=0)
    """What dare draws by. Default: 42."""
    base: str | None = None
    """The model that task_arithmetic adds to."""

    @model_validator(mode="before")
    @classmethod
    def _all_count_alike(cls, tree: Any) -> Any:
        models = tree.get("models") if isinstance(tree, dict) else None
        if not models or not isinstance(models, list) or tree.get("weights"):
            return tree
        return {**tree, "weights": [1 / len(models)] * len(models)}

    @model_validator(mode="after")
    def _weights_fit(self) -> Merging:
        count = len(self.models)
        if count < 2:
            raise ValueError("one model is nothing to merge: name two or more")
        if len(self.weights) != count:
            raise ValueError(f"weights has {len(self.weights)} numbers, and there are {count} models: give one of each")
        if not any(self.weights):
            raise ValueError("weights are all 0, so nothing would be left: give one that is not")
        if self.method == "slerp" and count != 2:
            raise ValueError(f"slerp goes from one model to another, and {count} are given: use linear")
        if self.method == "slerp" and (min(self.weights) < 0 or not self.adds_up_to_one):
            raise ValueError("weights of slerp are shares of the way: give two of 0 or more that add up to 1")
        return self

    @model_validator(mode="after")
    def _keys_fit_the_method(self) -> Merging:
        if self.density is not None and not self.method.startswith(PRUNING):
            raise ValueError(f"density has no effect with '{self.method}', which keeps all numbers: drop it")
        if self.seed is not None and not self.method.startswith("dare"):
            raise ValueError(f"seed has no effect with '{self.method}', which draws nothing: drop it")
        if self.method == "task_arithmetic" and self.base is None:
            raise ValueError("task_arithmetic needs base, the model that the others were trained from")
        if self.base is not None and self.method != "task_arithmetic":
            raise ValueError(f"base has no effect with '{self.method}': drop it, or use task_arithmetic")
        return self

    @property
    def adds_up_to_one(self) -> bool:
        """Whether the weights add up to 1, as those of whole models must, or the sum would be scaled."""
        return math.isclose(sum(self.weights), 1.0, abs_tol=1e-6)

    def facts(self) -> dict[str, object]:
        """What is kept of it in a manifest, besides the models."""
        told: dict[str, object] = {"method": self.method, "weights": self.weights}
        if self.method.startswith(PRUNING):
            told["density"] = self.density or DENSITY
        if self.method.startswith("dare"):
            told["seed"] = SEED if self.seed is None else self.seed
        return told
