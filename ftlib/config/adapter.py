"""`adapter:` which weights are added and trained; `null` trains the whole model.

One class a kind, its keys named as PEFT names them; `ftlib/models/adapters/build.py` builds them. Besides its keys, a
section says two things in plain words: `saves`, whether a trial leaves a small adapter or a whole model, and
`mergeable`, whether the adapter can be computed into its base (`ftlib merge`).
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


BEGUN = "A trained adapter to go on with: registry:NAME, or a folder. Its shape is the adapter's."

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
    """Low-rank adapters: two small matrices beside each linear layer."""
    r: int = Field(default=16, ge=1)
    """The rank: how many columns A and B have. More learns more, and costs more memory."""
    lora_alpha: float = Field(default=32, gt=0)
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapter's inputs that is dropped in training."""
    target_modules: Modules = "all-linear"
    """Which linear layers get one: all-linear, a list of the last parts of their names, or a regular expression over
    names."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """A rank of its own for a part of the model: {q_proj: 32}."""
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """A lora_alpha of its own for a part of the model: {q_proj: 64}."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r), so that a high rank learns as fast as a low one."""
    use_dora: bool = False
    """Train the size and the direction of each weight apart (DoRA)."""
    init_lora_weights: Annotated[bool | str, BeforeValidator(_initialization)] = True
    """How A and B begin: true (A random, B zero), gaussian, orthogonal, olora, pissa, pissa_niter_N, corda, eva, loftq,
    mica."""
    lora_plus_ratio: float | None = Field(default=None, ge=1)
    """The learning rate of B as a multiple of A's (LoRA+)."""
    lora_fa: bool = False
    """Train B alone; A stays as it was drawn (LoRA-FA)."""

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
    """LoRA that moves rank to the layers that need it."""
    init_r: int = Field(default=12, ge=2)
    """The rank of each matrix at the start."""
    target_r: int = Field(default=8, ge=1)
    """The average rank at the end."""
    tinit: int = Field(default=0, ge=0)
    """Steps before the rank begins to fall."""
    tfinal: int = Field(default=0, ge=0)
    """Steps at the end in which the rank no longer changes."""
    deltaT: int = Field(default=1, ge=1)
    """Steps between two changes of the rank."""
    beta1: float = Field(default=0.85, gt=0, lt=1)
    """How slowly the importance of a weight follows its latest value."""
    beta2: float = Field(default=0.85, gt=0, lt=1)
    """How slowly the uncertainty of that importance follows its latest value."""
    orth_reg_weight: float = Field(default=0.5, ge=0)
    """How strongly the singular vectors are held orthogonal."""
    lora_alpha: float = Field(default=32, gt=0)
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapter's inputs that is dropped in training."""
    target_modules: Modules = "all-linear"
    """Which linear layers get one: all-linear, a list of the last parts of their names, or a regular expression over
    names."""

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
    """Learned factors for keys, values and the inner layer of each block: the smallest adapter."""
    target_modules: Modules | None = None
    """Which linear layers get factors; null: the usual ones of this model."""
    feedforward_modules: Modules | None = None
    """Which of them are feed-forward layers, whose inputs are scaled; null: the usual ones."""

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
    """Shared random matrices with learned vectors between them."""
    r: int = Field(default=256, ge=1)
    """The rank of the shared matrices."""
    projection_prng_key: int = 0
    """The seed of the shared matrices."""
    vera_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapter's inputs that is dropped in training."""
    d_initial: float = 0.1
    """The first value of the inner vectors."""
    target_modules: Modules = "all-linear"
    """Which linear layers get one: all-linear, a list of the last parts of their names, or a regular expression over
    names."""


class Oft(Adapter):
    """Orthogonal rotations of the weights in blocks (Qiu et al. 2023, arXiv:2306.07280). Give `r` (the number of
    blocks) or `oft_block_size`, the other being 0."""

    type: Literal["oft"]
    """Orthogonal fine-tuning: weights are turned, not moved."""
    r: int = Field(default=0, ge=0)
    """How many blocks a layer has; 0: as oft_block_size says."""
    oft_block_size: int = Field(default=32, ge=0)
    """The size of a block; 0: as r says."""
    module_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of blocks that are left unturned in a training step."""
    coft: bool = False
    """Keep the rotation within eps of none."""
    eps: float = Field(default=6e-5, gt=0)
    """How far the rotation may go with coft."""
    block_share: bool = False
    """One rotation for all blocks of a layer."""
    use_cayley_neumann: bool = True
    """Compute rotations by a series, which is faster and less exact."""
    num_cayley_neumann_terms: int = Field(default=5, ge=1)
    """How many terms that series has."""
    target_modules: Modules = "all-linear"
    """Which linear layers get one: all-linear, a list of the last parts of their names, or a regular expression over
    names."""

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
    """Orthogonal fine-tuning by products of sparse rotations (butterflies)."""
    boft_block_size: int = Field(default=4, ge=0)
    """The size of a block; 0: as boft_block_num says."""
    boft_block_num: int = Field(default=0, ge=0)
    """How many blocks a layer has; 0: as boft_block_size says."""
    boft_n_butterfly_factor: int = Field(default=1, ge=1)
    """How many sparse rotations are multiplied."""
    boft_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of blocks that are left unturned in a training step."""
    target_modules: Modules = "all-linear"
    """Which linear layers get one: all-linear, a list of the last parts of their names, or a regular expression over
    names."""

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
    """How many learned positions stand before the input."""

    @property
    def mergeable(self) -> bool:
        return False


class Prefix(_Prompt):
    """Learned keys and values before every layer's own (Li and Liang 2021, arXiv:2101.00190). They begin as the base's
    own for random words. `prefix_projection` learns them through an MLP of `encoder_hidden_size` (null: the model's
    width), and they begin at zero."""

    type: Literal["prefix"]
    """Learned keys and values before those of the input, in every layer."""
    prefix_projection: bool = False
    """Compute them by a small network while training."""
    encoder_hidden_size: int | None = Field(default=None, ge=1)
    """The width of that network."""


class Prompt(_Prompt):
    """Learned embeddings before the input's (Lester et al. 2021, arXiv:2104.08691), drawn at random, from the
    vocabulary's, or taken from a text's."""

    type: Literal["prompt"]
    """Learned embeddings before those of the input."""
    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "RANDOM"
    """Where they begin: at random, at random words of the vocabulary, or at a text."""
    prompt_tuning_init_text: str | None = None
    """The text to begin at (with TEXT)."""

    @model_validator(mode="after")
    def _text_for_text(self) -> Prompt:
        if (self.prompt_tuning_init == "TEXT") != bool(self.prompt_tuning_init_text):
            raise ValueError("prompt_tuning_init: TEXT and prompt_tuning_init_text (the text) go together")
        return self


class PTuning(_Prompt):
    """Learned embeddings before the input's that a small encoder computes (Liu et al. 2021, arXiv:2103.10385)."""

    type: Literal["p_tuning"]
    """Learned embeddings before those of the input, computed by a small network."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """What kind of network."""
    encoder_hidden_size: int | None = Field(default=None, ge=1)
    """The network's width; null: the model's."""
    encoder_num_layers: int = Field(default=2, ge=1)
    """The network's layers."""
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the network's inputs that is dropped in training."""


class Bottleneck(Adapter):
    """A narrow two-layer network after each attention and each MLP (Houlsby et al. 2019, arXiv:1902.00751).

    `target_modules` are the linear layers whose output it follows; null takes the last one of each sublayer.
    """

    type: Literal["bottleneck"]
    """A small network after each block's layers (Houlsby adapters)."""
    bottleneck_size: int = Field(default=64, ge=1)
    """Its width."""
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    """Its activation."""
    target_modules: Modules | None = None
    """After which layers it stands; null: after attention and feed-forward."""

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
    """Train the biases of the model alone."""


class Layers(_Part):
    """The last `num_layers` transformer layers, the rest frozen (Lee et al. 2019, arXiv:1911.03090). `train_head` adds
    the output layer, which in some models is the input embedding too; a classifier's head is always trained."""

    type: Literal["layers"]
    """Train the last layers of the model, as they are."""
    num_layers: int = Field(default=2, ge=1)
    """How many of the last layers are trained."""
    train_head: bool = False
    """Train the output layer too."""


AdapterSection = Annotated[
    Lora | AdaLora | IA3 | Vera | Oft | Boft | Prefix | Prompt | PTuning | Bottleneck | BitFit | Layers,
    Field(discriminator="type"),
]
"""The union of all of them."""
