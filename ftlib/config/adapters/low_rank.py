"""The adapters of low rank: LoRA with what grew from it, AdaLoRA and VeRA."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator

from ftlib.config.adapters.base import Adapter, Modules
from ftlib.errors import nearest

# What `init_lora_weights` may be, besides true, false and pissa_niter_N. Some move a part of the base into the adapter
# (MUTATING), some need training batches to start from (CALIBRATED).
INITS = ("gaussian", "orthogonal", "olora", "pissa", "corda", "eva", "loftq", "mica")
MUTATING = ("olora", "pissa", "corda")
CALIBRATED = ("corda", "eva")


def _initialization(value: Any) -> Any:
    if (
        isinstance(value, bool)
        or value in INITS
        or (isinstance(value, str) and re.fullmatch(r"pissa_niter_\d+", value))
    ):
        return value
    known = ("true", "false", *INITS, "pissa_niter_4")
    raise ValueError(f"{value!r} is no initialization: use one of {', '.join(known)}.{nearest(str(value), known)}")


BEGUN = (
    "A trained LoRA adapter that is trained further: registry:NAME, or a folder. Its shape (r, lora_alpha, "
    "target_modules and others) holds, and another value is refused. null begins a new adapter."
)


if TYPE_CHECKING:

    class _Begun(Adapter):
        """An adapter with the key `from`."""
else:  # a word of Python's, so a class body has no way to write it
    _Begun = create_model("_Begun", __base__=Adapter, **{"from": (str | None, Field(default=None, description=BEGUN))})


class Lora(_Begun):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) and what grew from them.

    `use_dora` (arXiv:2402.09353) trains magnitude and direction apart; `use_rslora` (arXiv:2312.03732) scales by the
    root of r; `lora_plus_ratio` (LoRA+, arXiv:2402.12354) is B's learning rate over A's; `lora_fa` (arXiv:2308.03303)
    freezes A. `init_lora_weights`: gaussian, orthogonal, olora (arXiv:2406.01775), pissa (arXiv:2404.02948) and
    pissa_niter_N (its fast SVD), corda (arXiv:2406.05223), eva (arXiv:2410.07170), loftq (arXiv:2310.08659), mica
    (arXiv:2604.01694). A part of the model can have its own rank and alpha: `rank_pattern: {q_proj: 32}`.
    `from: registry:NAME` (or a folder) goes on with a trained adapter, whose shape it has.
    """

    type: Literal["lora"]
    """LoRA (arXiv:2106.09685): two small matrices, A and B, beside each linear layer."""
    r: int = Field(default=16, ge=1)
    """The rank of A and B. A higher rank can learn more, and takes more memory."""
    lora_alpha: float = Field(default=32, gt=0)
    """The adapter's output is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapter's inputs that is set to 0 in training."""
    target_modules: Modules = "all-linear"
    """The linear layers that get an adapter: all-linear (all but the output layer), a list of the last parts of their
    names, or a regular expression over whole names."""
    layers_to_transform: list[Annotated[int, Field(ge=0)]] | None = None
    """The numbers of the model's layers that get an adapter, from 0: [10, 11]. null adapts all of them. It does not go
    together with a regular expression in target_modules."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Another rank for some layers: {q_proj: 32}. A key is the last part of a layer's name, or a regular expression for
    the end of it."""
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Another lora_alpha for some layers: {q_proj: 64}. Keys are as in rank_pattern."""
    use_rslora: bool = False
    """Multiply by lora_alpha / sqrt(r) instead of lora_alpha / r, so that a high rank learns as fast as a low one
    (rsLoRA, arXiv:2312.03732)."""
    use_dora: bool = False
    """Train the magnitude and the direction of each weight apart (DoRA, arXiv:2402.09353)."""
    init_lora_weights: Annotated[bool | str, BeforeValidator(_initialization)] = True
    """How A and B begin. true: A is random and B is zero. false: both are random. Other ways: gaussian, orthogonal,
    olora, pissa, pissa_niter_N (a fast SVD in N rounds), corda, eva, loftq, mica."""
    lora_plus_ratio: float | None = Field(default=None, ge=1)
    """The learning rate of B divided by that of A (LoRA+, arXiv:2402.12354). null gives both the same rate."""
    lora_fa: bool = False
    """Train only B. A stays as it is drawn (LoRA-FA, arXiv:2308.03303)."""
    modules_to_save: list[str] = Field(default_factory=list)
    """Modules that are trained whole, and saved with the adapter, by the last parts of their names: [embed_tokens,
    lm_head] for new tokens. A module and its copy take memory for all its weights. Such an adapter is served alone, and
    not in a bank."""
    ensure_weight_tying: bool = False
    """Where the base has one matrix for its embeddings and its output layer: train one copy of it, for both. false, as
    in PEFT, trains a copy for each module that modules_to_save names."""
    target_parameters: list[str] = Field(default_factory=list)
    """Weights that stand in no linear layer and get an A and a B too, by the last parts of their names:
    [mlp.experts.gate_up_proj, mlp.experts.down_proj] are the experts of a mixture. They take no lora_dropout."""

    @model_validator(mode="after")
    def _variants_fit(self) -> Lora:
        if self.lora_fa and self.lora_plus_ratio is not None:
            raise ValueError("lora_fa freezes A, so lora_plus_ratio has nothing to be the ratio to: drop one of them")
        if self.start is not None and self.init_lora_weights is not True:
            raise ValueError("from brings the first weights, and so does init_lora_weights: drop one of them")
        by_name = self.target_modules == "all-linear" or not isinstance(self.target_modules, str)
        if self.layers_to_transform is not None and not by_name:
            raise ValueError(
                "target_modules is a regular expression, which can name layers itself: drop layers_to_transform"
            )
        if self.lora_fa and self.use_dora:
            raise ValueError("lora_fa updates pairs of A and B, and use_dora adds a third weight: drop one of them")
        if self.lora_fa and self.init_lora_weights == "mica":
            raise ValueError("lora_fa freezes A and mica freezes B, so nothing would be trained: drop one of them")
        if self.use_dora and (self.moves_base or self.init_lora_weights in ("mica", "loftq")):
            raise ValueError(
                f"use_dora measures the base's weights, which init_lora_weights '{self.init_lora_weights}' changes or "
                "replaces: use init_lora_weights: true or use_dora: false"
            )
        if (self.modules_to_save or self.target_parameters) and self.lora_fa:
            raise ValueError("lora_fa updates pairs of A and B of linear layers: drop modules_to_save, or lora_fa")
        if self.ensure_weight_tying and not self.modules_to_save:
            raise ValueError("ensure_weight_tying is about modules_to_save, which names none: drop it")
        if self.target_parameters and (
            self.lora_dropout or self.use_dora or self.init_lora_weights not in (True, False)
        ):
            raise ValueError(
                "target_parameters adds B A to a weight itself, so nothing can be dropped before: use lora_dropout: "
                "0.0, use_dora: false and init_lora_weights: true"
            )
        ranks = (self.r, *self.rank_pattern.values())
        if self.init_lora_weights == "orthogonal" and any(rank % 2 for rank in ranks):
            raise ValueError(f"init_lora_weights 'orthogonal' needs an even r, but r is {self.r}: use {self.r + 1}")
        return self

    @property
    def start(self) -> str | None:
        """The key `from`: the adapter that training begins with."""
        found: str | None = getattr(self, "from")
        return found

    @property
    def moves_base(self) -> bool:
        return str(self.init_lora_weights).startswith(MUTATING)

    @property
    def calibrated(self) -> bool:
        return self.init_lora_weights in CALIBRATED


class AdaLora(Adapter):
    """LoRA that moves rank to where it matters (Zhang et al. 2023, arXiv:2303.10512): each matrix starts with `init_r`,
    and between step `tinit` and `tfinal` steps before the end the average falls to `target_r`, every `deltaT` steps."""

    type: Literal["adalora"]
    """AdaLoRA (arXiv:2303.10512): LoRA that moves rank to the layers that need it."""
    init_r: int = Field(default=12, ge=2)
    """The rank of each matrix at the start."""
    target_r: int = Field(default=8, ge=1)
    """The average rank of the matrices at the end. It is below init_r."""
    tinit: int = Field(default=0, ge=0)
    """Optimizer steps at the start in which the ranks do not change."""
    tfinal: int = Field(default=0, ge=0)
    """Optimizer steps at the end in which the ranks do not change."""
    deltaT: int = Field(default=1, ge=1)
    """Optimizer steps between two changes of the ranks."""
    beta1: float = Field(default=0.85, gt=0, lt=1)
    """The decay of the moving average of a weight's importance. Nearer to 1, it follows the latest value more
    slowly."""
    beta2: float = Field(default=0.85, gt=0, lt=1)
    """The decay of the moving average of how uncertain that importance is. Nearer to 1, it follows the latest value
    more slowly."""
    orth_reg_weight: float = Field(default=0.5, ge=0)
    """The weight of the loss term that keeps the singular vectors orthogonal."""
    lora_alpha: float = Field(default=32, gt=0)
    """The adapter's output is multiplied by lora_alpha / init_r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapter's inputs that is set to 0 in training."""
    target_modules: Modules = "all-linear"
    """The linear layers that get an adapter: all-linear (all but the output layer), a list of the last parts of their
    names, or a regular expression over whole names."""

    @model_validator(mode="after")
    def _falls(self) -> AdaLora:
        if self.target_r >= self.init_r:
            raise ValueError(f"target_r ({self.target_r}) must be below init_r ({self.init_r}), from which it falls")
        return self


class Vera(Adapter):
    """Frozen random projections that all layers share, with a learned scale each (Kopiczko et al. 2023,
    arXiv:2310.11454)."""

    type: Literal["vera"]
    """VeRA (arXiv:2310.11454): random matrices that all layers share, with two learned vectors for each layer."""
    r: int = Field(default=256, ge=1)
    """The rank of the shared matrices. It is higher than a rank of LoRA, because only vectors are trained."""
    projection_prng_key: int = 0
    """The seed that draws the shared matrices."""
    vera_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapter's inputs that is set to 0 in training."""
    d_initial: float = 0.1
    """The first value of the learned vector between the two matrices."""
    target_modules: Modules = "all-linear"
    """The linear layers that get an adapter: all-linear (all but the output layer), a list of the last parts of their
    names, or a regular expression over whole names."""
