"""Where the parts of gpu_day.py run, and what they share: bases, rows, runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu
import pack_step
import torch
from torch import Tensor

from ftlib.run import context

RANK = 16


@dataclass(frozen=True)
class Place:
    """Where a part runs, and how large."""

    tiny: bool
    folder: Path

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.tiny else "cuda")

    @property
    def dtype(self) -> str:
        return "float32" if self.tiny else "bfloat16"

    @property
    def seconds(self) -> float:
        """Of measuring one thing."""
        return 0.05 if self.tiny else 1.0

    def timed(self, action: Callable[[], Any]) -> float:
        return pack_step.timed(action, self.device, self.seconds)

    def synthetic(self, shape: str, weights: bool = False, **options: Any) -> tuple[Any, Any]:
        """A base of a shape of pack_step.py and rows of random tokens: (setting, data)."""
        asked = {"shape": "small" if self.tiny else shape, "rank": RANK, "dtype": self.dtype, **options}
        with self.device:
            return pack_step.make(self.folder, argparse.Namespace(**asked), weights)

    def base(self, setting: Any, data: Any, slots: int = 1, rank: int = RANK) -> Any:
        """The frozen base of a pack; random weights are drawn on the device."""
        from ftlib.pack import frozen_base

        load = frozen_base.load_model

        def on_device(model: Any, *more: Any) -> Any:
            if not list(Path(model.name_or_path).glob("*.safetensors")):
                model = model.model_copy(update={"init": "random"})
            with self.device:
                return load(model, *more)

        frozen_base.load_model = on_device
        return frozen_base.FrozenBase(setting.experiment(), data, slots, rank, self.device)

    def written(self, case: str, **options: Any) -> tuple[dict[str, Any], argparse.Namespace]:
        """An experiment over texts, with the model and the files of gpu.py."""
        asked: dict[str, Any] = {"tiny": self.tiny, "steps": 12, "batch": 4, "length": 64 if self.tiny else 512}
        found = argparse.Namespace(**{**asked, "folder": self.folder, "keep_activations": True, **options})
        gpu.make(found)
        return gpu.experiment_of(case, found), found


def tflops(place: Place) -> float:
    """10^12 operations a second of one large product in the part's dtype."""
    size = 256 if place.tiny else 8192
    x: Tensor = torch.randn(size, size, device=place.device, dtype=getattr(torch, place.dtype))
    return 2 * size**3 / place.timed(lambda: x @ x) / 1e12


def packed(place: Place, shape: str, width: int, **more: Any) -> Any:
    setting, data = place.synthetic(shape, **more)
    return pack_step.packed(place.base(setting, data), setting, width, other_batches=True)


def setting_of(tree: dict[str, Any], folder: Path) -> Any:
    from ftlib.config import Experiment
    from ftlib.data import prepare
    from ftlib.models.base import load_tokenizer
    from ftlib.run.directory import Run

    experiment = Experiment.parse(tree)
    data = prepare(experiment.data, experiment.method.rows, load_tokenizer(experiment.model))
    run = Run.create(folder / "runs", tree["name"], "", {"experiment": experiment.to_dict()})
    return context.Setting(run=str(run.path), data=str(data.path), resolved=experiment.to_dict())


def data_of(setting: Any) -> Any:
    from ftlib.data import load_prepared

    return load_prepared(Path(setting.data))


def trial_of(setting: Any, name: str) -> Any:
    from ftlib.run.directory import Run

    return Run(Path(setting.run)).trial(name)


def train(place: Place, setting: Any, points: dict[str, dict[str, Any]]) -> None:
    from ftlib.pack.engine import Pack

    def failed(reason: str) -> None:
        raise SystemExit(reason)

    pack = Pack(place.base(setting, data_of(setting), len(points), 8), setting)
    for name, point in points.items():
        pack.join(name, point, lambda row: None, failed)
    while pack.members:
        pack.tick()
