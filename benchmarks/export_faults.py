"""How far each format's gate stands from an honest export, and from planted faults.

    python benchmarks/export_faults.py NAME [--formats merged:float32,gguf:q8_0,...] [--layer model.layers.26...]

NAME is what `ftlib export` takes. A line is one export: an honest one; one whose matrix LAYER is transposed; one that
has forgotten alpha, so that half of the tune is left; one that has lost the tune. `apart`, `kept` and `layer` are those
of ftlib/export/gate.py and layers.py, beside the limit of `apart`; the last column says what refuses it. LAYER is the
square matrix that moves the logits least when it is transposed, found by trying each, unless it is named.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ftlib.driver.export import opened
from ftlib.driver.quiet import quiet_libraries
from ftlib.errors import FtlibError
from ftlib.export.formats import check_dtype, format_of
from ftlib.export.gate import Trained, agreement, check_logits
from ftlib.export.layers import check_layers, farthest
from ftlib.export.source import Source
from ftlib.models.base import load_model
from ftlib.registry.agreement import apart, free, logits_of

FORMATS = "merged:bfloat16,gguf:f16,gguf:q8_0,gguf:q6_k,gguf:q5_k_m,gguf:q4_k_m,gguf:q4_0,int8,fp8,int4"
Weights = dict[str, torch.Tensor]
Spoil = Callable[[Weights], None]


@dataclass(frozen=True)
class Spoiled(Source):
    """A source whose merge has a fault."""

    spoil: Spoil

    def merged(self, folder: Path, dtype: str | None = None) -> None:
        super().merged(folder, dtype)
        parts = load_file(folder / "model.safetensors")
        self.spoil(parts)
        whole = {name: part.contiguous() for name, part in parts.items()}
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--formats", default=FORMATS)
    parser.add_argument("--layer")
    asked = parser.parse_args()
    quiet_libraries()
    with opened(asked.name, print) as source:
        trained = source.trained()
        layer = asked.layer or least(source, trained)
        print("format | fault | logits apart | limit | kept | layer apart | refused by")
        for name in asked.formats.split(","):
            for fault, spoil in faults(source, layer):
                print(" | ".join(line(name, fault, Spoiled(source.candidate, source.name, spoil), trained)), flush=True)


def faults(source: Source, layer: str) -> Iterator[tuple[str, Spoil]]:
    base = {name: part.clone() for name, part in load_model(source.base).state_dict().items()}

    def scaled(share: float) -> Spoil:
        def spoil(parts: Weights) -> None:
            parts.update({n: (base[n] + share * (p.float() - base[n])).to(p.dtype) for n, p in parts.items()})

        return spoil

    yield "none", lambda parts: None
    yield f"{layer} transposed", lambda parts: parts.update({f"{layer}.weight": parts[f"{layer}.weight"].T})
    yield "alpha forgotten: half of it", scaled(0.5)
    yield "the tune lost", scaled(0.0)


def least(source: Source, trained: Trained) -> str:
    """The square matrix whose transposition moves the logits least. Prints the range."""
    with tempfile.TemporaryDirectory() as folder:
        source.merged(Path(folder) / "it", "float32")
        model = source.candidate.ready(source.base.model_copy(update={"name_or_path": f"{folder}/it"}))
        found = {name: moved(part, model, trained) for name, part in model.named_modules() if square(part)}
    ranked = sorted(found, key=lambda name: found[name])
    low, middle, high = (found[ranked[place]] for place in (0, len(ranked) // 2, -1))
    print(
        f"{len(ranked)} square matrices, transposed one at a time, move logits by {low:.3f}, {middle:.3f}, {high:.3f}"
    )
    return ranked[0]


def square(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.Linear) and part.in_features == part.out_features


def moved(part: torch.nn.Module, model: torch.nn.Module, trained: Trained) -> float:
    kept = part.weight.data
    part.weight.data = kept.T.contiguous()
    found = apart(logits_of(model, trained.probes), trained.tuned)
    part.weight.data = kept
    return found


def line(name: str, fault: str, source: Source, trained: Trained) -> list[str]:
    to, _, dtype = name.partition(":")
    format = format_of(to)
    chosen = check_dtype(to, format, dtype or None)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        format.write(source, place, chosen)
        program = format.program(source, place)
        logits, layers = program.logits(trained.probes), program.layers(trained.layers) or {}
        del program
        free()
        shutil.rmtree(place / ".merged", ignore_errors=True)
    limits = format.limits(trained, chosen)
    found = agreement(trained, logits)
    refused = [who for who, check in (
        ("logits", lambda: check_logits(trained, logits, limits, "it")),
        ("layers", lambda: check_layers(trained.layers, layers, "it")),
    ) if fails(check)]  # fmt: skip
    layer = farthest(trained.layers, layers)[1]
    figures = (f"{found.apart:.3g}", f"{limits.apart:g}", f"{found.kept:.3f}", f"{layer:.3g}")
    return [name, fault, *figures, " and ".join(refused) or "nothing"]


def fails(check: Callable[[], object]) -> bool:
    try:
        check()
    except FtlibError:
        return True
    return False


if __name__ == "__main__":
    main()
