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


class IA3(Adapter):
    """A learned scale for keys, values and the MLP's inner activations (Liu et al. 2022, arXiv:2205.05638).

    Null modules are those that PEFT knows for the architecture.
    """

    type: Literal["ia3"]
    """IA3 (arXiv:2205.05638): a learned factor for each key, value and inner activation of the MLP. It is the smallest
    adapter."""
    target_modules: Modules | None = None
    """The linear layers that get factors, as a list or a regular expression. null is the layers that PEFT knows for
    this architecture."""
    feedforward_modules: Modules | None = None
    """Those of target_modules that stand in the MLP: their inputs get the factors, and not their outputs. It is set
    where target_modules is set."""

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


class Oft(Adapter):
    """Orthogonal rotations of the weights in blocks (Qiu et al. 2023, arXiv:2306.07280). Give `r` (the number of
    blocks) or `oft_block_size`, the other being 0."""

    type: Literal["oft"]
    """OFT (arXiv:2306.07280), orthogonal fine-tuning: each block of a layer's weights is rotated."""
    r: int = Field(default=0, ge=0)
    """The number of blocks of a layer. With 0 it follows from oft_block_size. One of the two is 0."""
    oft_block_size: int = Field(default=32, ge=0)
    """The width of a block. With 0 it follows from r. One of the two is 0."""
    module_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of blocks that are not rotated in a training step."""
    coft: bool = False
    """Keep each rotation near to none, within eps (constrained OFT)."""
    eps: float = Field(default=6e-5, gt=0)
    """With coft: how far a rotation may go."""
    block_share: bool = False
    """All blocks of a layer share one rotation."""
    use_cayley_neumann: bool = True
    """Compute the rotations by a series (Cayley-Neumann), which is faster and less exact."""
    num_cayley_neumann_terms: int = Field(default=5, ge=1)
    """The number of terms of that series. More terms are more exact."""
    target_modules: Modules = "all-linear"
    """The linear layers that get an adapter: all-linear (all but the output layer), a list of the last parts of their
    names, or a regular expression over whole names."""

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
    """BOFT (arXiv:2311.06243): orthogonal fine-tuning whose rotation is a product of sparse ones (butterflies)."""
    boft_block_size: int = Field(default=4, ge=0)
    """The width of a block. With 0 it follows from boft_block_num. One of the two is 0."""
    boft_block_num: int = Field(default=0, ge=0)
    """The number of blocks of a layer. With 0 it follows from boft_block_size. One of the two is 0."""
    boft_n_butterfly_factor: int = Field(default=1, ge=1)
    """The number of sparse rotations that are multiplied. 1 is plain OFT."""
    boft_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of blocks that are not rotated in a training step."""
    target_modules: Modules = "all-linear"
    """The linear layers that get an adapter: all-linear (all but the output layer), a list of the last parts of their
    names, or a regular expression over whole names."""

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
    """The number of learned positions that stand before the input."""

    @property
    def mergeable(self) -> bool:
        return False


class Prefix(_Prompt):
    """Learned keys and values before every layer's own (Li and Liang 2021, arXiv:2101.00190). They begin as the base's
    own for random words. `prefix_projection` learns them through an MLP of `encoder_hidden_size` (null: the model's
    width), and they begin at zero."""

    type: Literal["prefix"]
    """Prefix tuning (arXiv:2101.00190): learned keys and values before those of the input, in every layer."""
    prefix_projection: bool = False
    """Compute the keys and values by a small network, which is trained."""
    encoder_hidden_size: int | None = Field(default=None, ge=1)
    """With prefix_projection: the width of that network. null is the width of the model."""


class Prompt(_Prompt):
    """Learned embeddings before the input's (Lester et al. 2021, arXiv:2104.08691), drawn at random, from the
    vocabulary's, or taken from a text's."""

    type: Literal["prompt"]
    """Prompt tuning (arXiv:2104.08691): learned embeddings before those of the input."""
    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = "RANDOM"
    """Where the embeddings begin: at random numbers (RANDOM), at random words of the vocabulary (SAMPLE_VOCAB), or at a
    text (TEXT)."""
    prompt_tuning_init_text: str | None = None
    """The text at which the embeddings begin. It is set with prompt_tuning_init: TEXT."""

    @model_validator(mode="after")
    def _text_for_text(self) -> Prompt:
        if (self.prompt_tuning_init == "TEXT") != bool(self.prompt_tuning_init_text):
            raise ValueError("prompt_tuning_init: TEXT and prompt_tuning_init_text (the text) go together")
        return self


class PTuning(_Prompt):
    """Learned embeddings before the input's that a small encoder computes (Liu et al. 2021, arXiv:2103.10385)."""

    type: Literal["p_tuning"]
    """P-tuning (arXiv:2103.10385): learned embeddings before those of the input, computed by a small network."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """The kind of network that computes the embeddings."""
    encoder_hidden_size: int | None = Field(default=None, ge=1)
    """The width of the network. null is the width of the model."""
    encoder_num_layers: int = Field(default=2, ge=1)
    """The number of layers of the network. Only an LSTM uses it."""
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the network's activations that is set to 0 in training. Only an LSTM uses it."""


class Bottleneck(Adapter):
    """A narrow two-layer network after each attention and each MLP (Houlsby et al. 2019, arXiv:1902.00751).

    `target_modules` are the linear layers whose output it follows; null takes the last one of each sublayer.
    """

    type: Literal["bottleneck"]
    """Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751): a narrow two-layer network after each attention and
    each MLP."""
    bottleneck_size: int = Field(default=64, ge=1)
    """The width of the network's inner layer."""
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = "gelu"
    """The activation function of the network."""
    target_modules: Modules | None = None
    """The linear layers after which a network stands, as a list or a regular expression. null is the last layer of each
    attention and each MLP."""

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
    """BitFit (arXiv:2106.10199): the biases of the model are trained, and the head of a classifier. The result is a
    whole model."""


class Layers(_Part):
    """The last `num_layers` transformer layers, the rest frozen (Lee et al. 2019, arXiv:1911.03090). `train_head` adds
    the output layer, which in some models is the input embedding too; a classifier's head is always trained."""

    type: Literal["layers"]
    """The last layers of the model are trained, and the rest is frozen (arXiv:1911.03090). The result is a whole
    model."""
    num_layers: int = Field(default=2, ge=1)
    """The number of layers that are trained, counted from the end."""
    train_head: bool = False
    """Train the output layer too. In some models it is also the input embedding. The head of a classifier is always
    trained."""


AdapterSection = Annotated[
    Lora | AdaLora | IA3 | Vera | Oft | Boft | Prefix | Prompt | PTuning | Bottleneck | BitFit | Layers,
    Field(discriminator="type"),
]
"""The union of all of them."""
