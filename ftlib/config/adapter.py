"""`adapter:` which weights are added and trained; `null` trains the whole model.

One class a kind, its keys named as PEFT names them; `ftlib/adapters/build.py` builds them. Besides its keys, a section says
two things in plain words: `saves`, whether a trial leaves a small adapter or a whole model, and `mergeable`, whether
the adapter can be computed into its base (`ftlib merge`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator

from ftlib.config.section import Section
from ftlib.errors import nearest

Modules = str | list[str]  # "all-linear", a regular expression over module names, or a list of their last parts

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


class Adapter(Section):
    """What every adapter says of itself."""

    @property
    def saves(self) -> Literal["adapter", "model"]:
        """What a trial leaves: an adapter beside its base, or a whole model."""
        return "adapter"

    @property
    def mergeable(self) -> bool:
        """Whether what it computes can be written into the base's own matrices."""
        return True

    @property
    def moves_base(self) -> bool:
        """Whether it starts by taking a part out of the base's weights."""
        return False

    @property
    def calibrated(self) -> bool:
        """Whether its first weights are computed from training batches."""
        return False


if TYPE_CHECKING:

    class _Begun(Adapter):
        """An adapter with the key `from`."""
else:  # a word of Python's, so a class body has no way to write it
    _Begun = create_model("_Begun", __base__=Adapter, **{"from": (str | None, None)})


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
    r: int = Field(default=16, ge=1)
    lora_alpha: float = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Modules = "all-linear"
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: Annotated[bool | str, BeforeValidator(_initialization)] = True
    lora_plus_ratio: float | None = Field(default=None, ge=1)
    lora_fa: bool = False

    @model_validator(mode="after")
    def _variants_fit(self) -> Lora:
        if self.lora_fa and self.lora_plus_ratio is not None:
            raise ValueError("lora_fa freezes A, so lora_plus_ratio has nothing to be the ratio to: drop one of them")
        if self.start is not None and self.init_lora_weights is not True:
            raise ValueError("from brings the first weights, and so does init_lora_weights: drop one of them")
        if self.lora_fa and self.use_dora:
            raise ValueError("lora_fa updates pairs of A and B, and use_dora adds a third weight: drop one of them")
        if self.lora_fa and self.init_lora_weights == "mica":
            raise ValueError("lora_fa freezes A and mica freezes B, so nothing would be trained: drop one of them")
        if self.use_dora and (self.moves_base or self.init_lora_weights in ("mica", "loftq")):
            raise ValueError(
                f"use_dora measures the base's weights, which init_lora_weights '{self.init_lora_weights}' changes or "
                "replaces: use init_lora_weights: true or use_dora: false"
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
    init_r: int = Field(default=12, ge=2)
    target_r: int = Field(default=8, ge=1)
    tinit: int = Field(default=0, ge=0)
    tfinal: int = Field(default=0, ge=0)
    deltaT: int = Field(default=1, ge=1)
    beta1: float = Field(default=0.85, gt=0, lt=1)
    beta2: float = Field(default=0.85, gt=0, lt=1)
    orth_reg_weight: float = Field(default=0.5, ge=0)
    lora_alpha: float = Field(default=32, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Modules = "all-linear"

    @model_validator(mode="after")
    def _falls(self) -> AdaLora:
        if self.target_r >= self.init_r:
            raise ValueError(f"target_r ({self.target_r}) must be below init_r ({self.init_r}), from which it falls")
        return self


class IA3(Adapter):
    """A learned scale for keys, values and the MLP's inner activations (Liu et al. 2022, arXiv:2205.05638).

    Null modules are those that PEFT knows for the architecture.
    """

    type: Literal["ia3"]
    target_modules: Modules | None = None
    feedforward_modules: Modules | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> IA3:
        if (self.target_modules is None) != (self.feedforward_modules is None):
            raise ValueError("target_modules and feedforward_modules (those of them inside an MLP) go together")
        if isinstance(self.target_modules, list) and isinstance(self.feedforward_modules, list):
            missing = sorted(set(self.feedforward_modules) - set(self.target_modules))
            if missing:
                raise ValueError(f"feedforward_modules must be among target_modules, but {', '.join(missing)} is not")
        return self


class Vera(Adapter):
    """Frozen random projections that all layers share, with a learned scale each (Kopiczko et al. 2023,
    arXiv:2310.11454)."""

    type: Literal["vera"]
    r: int = Field(default=256, ge=1)
    projection_prng_key: int = 0
    vera_dropout: float = Field(default=0.0, ge=0, lt=1)
    d_initial: float = 0.1
    target_modules: Modules = "all-linear"


class Oft(Adapter):
    """Orthogonal rotations of the weights in blocks (Qiu et al. 2023, arXiv:2306.07280). Give `r` (the number of
    blocks) or `oft_block_size`, the other being 0."""

    type: Literal["oft"]
    r: int = Field(default=0, ge=0)
    oft_block_size: int = Field(default=32, ge=0)
    module_dropout: float = Field(default=0.0, ge=0, lt=1)
    coft: bool = False
    eps: float = Field(default=6e-5, gt=0)
    block_share: bool = False
    use_cayley_neumann: bool = True
    num_cayley_neumann_terms: int = Field(default=5, ge=1)
    target_modules: Modules = "all-linear"

    @model_validator(mode="after")
    def _one_size(self) -> Oft:
        if (self.r == 0) == (self.oft_block_size == 0):
            raise ValueError(
                f"one of r ({self.r}) and oft_block_size ({self.oft_block_size}) follows from the other: set it to 0"
            )
        return self


class Boft(Adapter):
    """Orthogonal rotations factored as butterflies (Liu et al. 2023, arXiv:2311.06243). Give `boft_block_size` or
    `boft_block_num`, the other being 0."""

    type: Literal["boft"]
    boft_block_size: int = Field(default=4, ge=0)
    boft_block_num: int = Field(default=0, ge=0)
    boft_n_butterfly_factor: int = Field(default=1, ge=1)
    boft_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Modules = "all-linear"

    @model_validator(mode="after")
    def _one_size(self) -> Boft:
        if (self.boft_block_size == 0) == (self.boft_block_num == 0):
            raise ValueError(
                f"one of boft_block_size ({self.boft_block_size}) and boft_block_num ({self.boft_block_num}) follows "
                "from the other: set it to 0"
            )
        return self


class _Prompt(Adapter):
    """Vectors that stand before the input. There is no matrix of the base that they could be merged into."""

    num_virtual_tokens: int = Field(default=20, ge=1)

    @property
    def mergeable(self) -> bool:
        return False


class Prefix(_Prompt):
    """Learned keys and values before every layer's own (Li and Liang 2021, arXiv:2101.00190). `prefix_projection`
    learns them through an MLP of `encoder_hidden_size` (null: the model's width)."""

    type: Literal["prefix"]
    prefix_projection: bool = False
    encoder_hidden_size: int | None = Field(default=None, ge=1)


class Prompt(_Prompt):
    """Learned embeddings before the input's (Lester et al. 2021, arXiv:2104.08691), drawn at random, from the
    vocabulary's, or taken from a text's."""

    type: Literal["prompt"]
    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "RANDOM"
    prompt_tuning_init_text: str | None = None

    @model_validator(mode="after")
    def _text_for_text(self) -> Prompt:
        if (self.prompt_tuning_init == "TEXT") != bool(self.prompt_tuning_init_text):
            raise ValueError("prompt_tuning_init: TEXT and prompt_tuning_init_text (the text) go together")
        return self


class PTuning(_Prompt):
    """Learned embeddings before the input's that a small encoder computes (Liu et al. 2021, arXiv:2103.10385)."""

    type: Literal["p_tuning"]
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    encoder_hidden_size: int | None = Field(default=None, ge=1)  # null: the model's width
    encoder_num_layers: int = Field(default=2, ge=1)
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)


class Bottleneck(Adapter):
    """A narrow two-layer network after each attention and each MLP (Houlsby et al. 2019, arXiv:1902.00751).

    `target_modules` are the linear layers whose output it follows; null takes the last one of each sublayer.
    """

    type: Literal["bottleneck"]
    bottleneck_size: int = Field(default=64, ge=1)
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    target_modules: Modules | None = None

    @property
    def mergeable(self) -> bool:
        return False


class _Part(Adapter):
    """A part of the model's own weights is trained, so that a trial leaves a whole model."""

    @property
    def saves(self) -> Literal["adapter", "model"]:
        return "model"

    @property
    def mergeable(self) -> bool:
        return False


class BitFit(_Part):
    """The model's biases alone (Ben Zaken et al. 2021, arXiv:2106.10199), and a classifier's head."""

    type: Literal["bitfit"]


class Layers(_Part):
    """The last `num_layers` transformer layers, the rest frozen (Lee et al. 2019, arXiv:1911.03090). `train_head` adds
    the output layer, which in some models is the input embedding too; a classifier's head is always trained."""

    type: Literal["layers"]
    num_layers: int = Field(default=2, ge=1)
    train_head: bool = False


AdapterSection = Annotated[
    Lora | AdaLora | IA3 | Vera | Oft | Boft | Prefix | Prompt | PTuning | Bottleneck | BitFit | Layers,
    Field(discriminator="type"),
]
"""The union of all of them."""
