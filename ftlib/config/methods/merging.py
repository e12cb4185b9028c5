"""The method that trains nothing: finished models merged into one, whose weights a sweep can look for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from ftlib.config.merging import SEED, MergeMethod, Merging
from ftlib.config.methods.base import TEXTS, Better, Method
from ftlib.errors import nearest

Called = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]  # it is a part of a dotted path
BASE = "model.name_or_path"  # what task_arithmetic adds to


class Merge(Method):
    """Finished models merged into one, as `ftlib merge` does it. A trial merges and is evaluated; it trains nothing.

    The models are adapters of `model.name_or_path`, or whole models. `merge_method` is mergekit's name for the key.
    """

    type: Literal["merge"]
    """Merging: finished models become one, and nothing is trained. A sweep finds their weights."""
    models: dict[Called, str] = Field(min_length=2)
    """The models, by names of yours: {maths: registry:maths, chat: runs/chat}. Each is registry:NAME[@N], a run (its
    best trial), RUN/trials/ID, or a folder. All are LoRA adapters of the base, or all are whole models."""
    merge_method: MergeMethod = "linear"
    """How they are merged, by the names of ftlib merge --method."""
    weights: dict[Called, float] = Field(default_factory=dict)
    """A number for each model, by its name: {maths: 0.6, chat: 0.4}. None given: all count alike, and add up to 1. The
    space of a sweep has method.weights.maths."""
    normalize: bool = False
    """Divide the weights by their sum, so that they add up to 1. The weights of whole models must."""
    density: float | None = Field(default=None, gt=0, lt=1)
    """The share of numbers that ties, dare and magnitude_prune keep. null is 0.5. Other methods keep all of them."""

    @model_validator(mode="before")
    @classmethod
    def _all_count_alike(cls, tree: Any) -> Any:
        models = tree.get("models") if isinstance(tree, dict) else None
        if not isinstance(models, dict) or not models or tree.get("weights"):
            return tree
        return {**tree, "weights": dict.fromkeys(models, 1 / len(models))}

    @model_validator(mode="after")
    def _can_be_merged(self) -> Merge:
        other = next((name for name in self.weights if name not in self.models), None)
        if other is not None:
            raise ValueError(f"weights names '{other}', which is none of the models.{nearest(other, self.models)}")
        lacking = next((name for name in self.models if name not in self.weights), None)
        if lacking is not None:
            raise ValueError(f"weights lacks '{lacking}': give a number for each model")
        if self.normalize and not sum(self.weights.values()):
            raise ValueError("weights add up to 0, and normalize divides by their sum: use normalize: false")
        try:
            self.merging()
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    def merging(self, seed: int = SEED) -> Merging:
        """The same as `ftlib merge` is told it. `seed` is what dare draws by."""
        weights = [self.weights[name] for name in self.models]
        told = {
            "models": list(self.models.values()),
            "method": self.merge_method,
            "weights": [weight / sum(weights) for weight in weights] if self.normalize else weights,
            "density": self.density,
            "seed": seed if self.merge_method.startswith("dare") else None,
            "base": BASE if self.merge_method == "task_arithmetic" else None,
        }
        return Merging.model_validate(told)

    @property
    def trains(self) -> bool:
        return False

    @property
    def metrics(self) -> dict[str, Better]:
        return TEXTS
