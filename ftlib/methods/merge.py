"""Merging as a method: what a trial merges, and the trainer that evaluates it as it evaluates what SFT has trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ftlib.config import Choice, Experiment, Merge, Variants
from ftlib.errors import ConfigError
from ftlib.files.json_files import read_json
from ftlib.methods.sft import trainer
from ftlib.models.base import unlike, where
from ftlib.models.merging.parts import Part, Parts
from ftlib.models.merging.streamed import check_alike
from ftlib.run.layout import MANIFEST

METHOD, WEIGHTS = "method.merge_method", "method.weights."
BASE = "model.name_or_path"


def parts_of(experiment: Experiment) -> Parts:
    """What a point merges, where its models are folders. Raises InputError for models that do not fit together, or the
    base; ConfigError for adapters of another base."""
    method = _method(experiment)
    parts = [_part(name, Path(folder)) for name, folder in method.models.items()]
    base, how = Path(where(experiment.model)), method.merging(experiment.train.seed)
    made = Parts(how, parts, Part(BASE, base, {}) if how.base is not None else None)
    if made.kind == "adapter":
        _check_base(parts, experiment)
    elif base.is_dir():
        check_alike({**made.folders, BASE: base})
    return made


def check(experiment: Experiment) -> None:
    """Raises as `parts_of`, for each way of merging that the sweep tries."""
    for point in _ways(experiment):
        made, method = parts_of(point), _method(point)
        if made.kind == "model" and method.merge_method == "linear" and not _adds_up(experiment, method):
            raise ConfigError(
                "method.weights: those of whole models must add up to 1, or the sum would be scaled: use "
                "method.normalize: true."
            )


def _adds_up(experiment: Experiment, method: Merge) -> bool:
    swept = experiment.sweep is not None and any(path.startswith(WEIGHTS) for path in experiment.sweep.paths)
    return method.normalize or (not swept and method.merging().adds_up_to_one)


def _ways(experiment: Experiment) -> Iterator[Experiment]:
    """A point of each way of merging that the sweep tries, or the experiment as it stands."""
    space = experiment.sweep.space if experiment.sweep is not None else {}
    variants = space.get("method")
    told = (
        [variants.of(label).get("merge_method") for label in variants.labels] if isinstance(variants, Variants) else []
    )
    named = [name for value in told for name in (value if isinstance(value, list) else [value]) if name is not None]
    if isinstance(listed := space.get(METHOD), Choice):
        named += listed.choices
    if not named:
        yield experiment
    yield from (experiment.at({METHOD: name, "method.density": None}) for name in dict.fromkeys(named))


def _method(experiment: Experiment) -> Merge:
    assert isinstance(experiment.method, Merge)
    return experiment.method


def _part(name: str, folder: Path) -> Part:
    return Part(name, folder, read_json(folder.parent / MANIFEST, dict) or {})


def _check_base(parts: Sequence[Part], experiment: Experiment) -> None:
    """All adapters have one base by now, so the first one speaks for all."""
    first = parts[0]
    other = unlike(first.manifest["base"], experiment.model)
    if other is not None:
        raise ConfigError(f"{BASE}: {first.name}, which method.models names, was trained on {other}.")
    quantized = ((first.manifest.get("experiment") or {}).get("model") or {}).get("quantization")
    if quantized:
        raise ConfigError(
            f"method.models.{first.name}: it was trained on a base in {quantized}, and a merge is evaluated on a plain "
            "one."
        )


__all__ = ["check", "parts_of", "trainer"]
