"""Whether an adapter computes the same in each of the ways that it can be served, told by its logits on a few probes.

The ways are: beside its base (PEFT, as it was trained), computed into its base (merged), and in the bank that serves
many adapters at once. All use one loaded base, one after another.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

import ftlib.models.adapters.fusion  # noqa: F401 (registers the tuners that PEFT lacks)
from ftlib.config import ModelSection
from ftlib.errors import FtlibError
from ftlib.models.adapter_files import adapter_config, why_not_banked
from ftlib.models.adapters.merge import MERGEABLE
from ftlib.models.bank_routes import Mix
from ftlib.models.plain_lora import read_lora, serving_bank

# How far the same adapter's logits may be apart, as a share of their size (2-norm). Measured on Llamas of 2 to 12
# layers, 64 to 1,024 wide: at most 1.2e-6, 2.1e-3 and 1.7e-2, whatever the adapter, growing with the root of the depth.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
# Merging makes quantized weights plain again, which other kernels multiply: nf4 was 5e-7 apart in float32, int8 6e-3.
QUANTIZED = {None: 0.0, "nf4": 1e-2, "int8": 3e-2}
LAST = 32  # positions of each probe that are compared: a position has as many logits as there are tokens

NOTHING = torch.zeros(0)

Probes = Sequence[list[int]]
Logits = list[Tensor]


@dataclass(frozen=True)
class Ways:
    """The logits of an adapter, each way; None where it cannot go it. `untuned` are the base's own."""

    dtype: torch.dtype
    tolerance: float
    untuned: Logits
    own: Logits
    bank: Logits | None
    merged: Logits | None

    def agree(self, owner: str) -> dict[str, Any]:
        """How far they are apart. Raises FtlibError for logits that are the base's, or that differ by more than
        rounding gives."""
        effect = apart(self.untuned, self.own)
        if not effect:
            raise FtlibError(f"{owner}: its adapter changes no logit, so its weights fit no layer of the base.")
        found: dict[str, Any] = {
            "dtype": str(self.dtype).removeprefix("torch."),
            "tolerance": self.tolerance,
            "effect": short(effect),
        }
        for name, how, logits in (
            ("bank", "in the bank that serves it", self.bank),
            ("merged", "merged into its base", self.merged),
        ):
            found[name] = None if logits is None else short(apart(logits, self.own))
            if found[name] is not None and not found[name] <= self.tolerance:  # NaN is no agreement
                raise FtlibError(
                    f"{owner}: {how}, the adapter gives other logits than beside it (apart by {found[name]:.2g} of "
                    "their "
                    f"size, where rounding gives at most {self.tolerance:g}): what is served would not be what was "
                    "trained. Please report this; --no-gate promotes it all the same."
                )
        return found


def ways_of(
    adapter: Path,
    load: Callable[[], Any],
    section: ModelSection,
    probes: Probes,
    owner: str,
    beside: Callable[[Any], None],
    load_merged: Callable[[], Any] | None = None,
) -> Ways:
    """The logits of the adapter in a folder, each way. `load` gives its base; `load_merged` the model that it was
    merged into, where that was written already, or else it is merged in memory.

    `beside` gets the PEFT model in between: who wants more of it need not load it again. Raises FtlibError for an
    adapter that does not fit its base, and for logits that are no numbers.
    """
    config = adapter_config(owner, adapter)
    base = load()
    dtype, quantized = base.dtype, section.quantization is not None
    untuned = logits_of(base, probes)
    bank = _in_bank(adapter, base, probes, owner)
    model = beside_base(base, adapter, owner)
    own = logits_of(model, probes)
    check_finite(own, owner)
    beside(model)
    merged = None
    if config["peft_type"] in MERGEABLE and not quantized and load_merged is None:
        merged = logits_of(model.merge_and_unload(safe_merge=True), probes)
    elif config["peft_type"] in MERGEABLE:
        del base, model
        free()
        merged = logits_of(load_merged() if load_merged else _merged_into_plain(adapter, load, owner), probes)
    tolerance = max(TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16]), QUANTIZED[section.quantization])
    return Ways(dtype, tolerance, untuned, own, bank, merged)


def beside_base(base: Any, adapter: Path, owner: str) -> Any:
    """The adapter of a folder on its loaded base, for evaluation. Raises FtlibError where it does not fit."""
    try:
        return PeftModel.from_pretrained(base, adapter).eval()
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FtlibError(f"{owner}: PEFT cannot put its adapter on its base: {reason}") from error


def logits_of(model: Any, probes: Probes) -> Logits:
    """The logits at the last positions of each probe, or a classifier's of each probe."""
    found = []
    with torch.inference_mode():
        for ids in probes:
            logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu()
            found.append(logits[-min(LAST, len(ids)) :] if logits.dim() == 2 else logits)
    return found


def free() -> None:
    """What was loaded leaves memory before the next one comes; models hold themselves in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def check_finite(logits: Logits, owner: str) -> None:
    """Raises FtlibError for NaN and infinity."""
    if not all(torch.isfinite(tensor).all() for tensor in logits):
        raise FtlibError(f"{owner}: some of its logits are no numbers (NaN or infinite): choose another trial.")


def _in_bank(adapter: Path, base: Any, probes: Probes, owner: str) -> Logits | None:
    """As the endpoint computes it. None for an adapter that it serves otherwise, or that PEFT will refuse."""
    if why_not_banked(owner, adapter):
        return None
    lora = read_lora(owner, adapter)
    layers = dict(base.named_modules()).keys()
    whole = 2 * len(lora.ranks) == len(lora.state)
    fits = all(lora.state.get(f"{name}.lora_B.weight", NOTHING).shape[1:] == (r,) for name, r in lora.ranks.items())
    if not (whole and fits and lora.ranks.keys() <= layers):
        return None
    bank = serving_bank(base, lora.ranks, 1, lora.rank, base.dtype)
    bank.load(0, lora.state)
    try:
        with bank.routed(Mix([0], bank.device)):
            return logits_of(base, probes)
    finally:
        bank.detach()


def _merged_into_plain(adapter: Path, load: Callable[[], Any], owner: str) -> Any:
    """A quantized base made plain again, with the adapter in it, as `ftlib merge` does it."""
    base = load().dequantize()
    base.is_loaded_in_4bit = base.is_loaded_in_8bit = False  # IA3 goes by it
    return beside_base(base, adapter, owner).merge_and_unload(safe_merge=True)


def apart(some: Logits, others: Logits) -> float:
    """The largest ||a - b|| / ||b|| of a probe."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(some, others, strict=True))


def short(value: float) -> float:
    """Three digits, as they stand in a manifest."""
    return float(f"{value:.3g}")
