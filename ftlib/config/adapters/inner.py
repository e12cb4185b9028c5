"""The adapters that work on activations between layers: factors (IA3), small networks (bottlenecks), and the attention
over several of these (fusion)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftlib.config.adapters.base import Adapter, Modules


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


class Fusion(Adapter):
    """Attention over finished bottleneck adapters of one base (AdapterFusion, Pfeiffer et al. 2021, arXiv:2005.00247).

    The adapters stay as they are. What is trained says, at each token, how much each of them counts. The fusion that a
    trial leaves holds its adapters.
    """

    type: Literal["fusion"]
    """AdapterFusion (arXiv:2005.00247): at each token, attention over finished bottleneck adapters."""
    adapters: dict[str, str] = Field(min_length=2)
    """The finished adapters, by names of yours: {support: registry:support, sql: runs/sql/trials/003/adapter}. Each is
    a bottleneck adapter of this base, and they have the same target_modules."""

    @property
    def mergeable(self) -> bool:
        return False
