"""Ray Tune's private names are there, and do what they are used for."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from ray.air.execution.resources.placement_group import PlacementGroupResourceManager
from ray.train.torch import TorchTrainer
from ray.tune import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.schedulers import PopulationBasedTraining

from ftlib.errors import FtlibError
from ftlib.sweeps.tune_private import (
    OpenController,
    OpenPlacementGroups,
    OpenPopulation,
    controlled_by,
    without_cleaner,
)

OVERRIDDEN = [
    (ours, theirs, name)
    for ours, theirs in (
        (OpenController, TuneController),
        (OpenPopulation, PopulationBasedTraining),
        (OpenPlacementGroups, PlacementGroupResourceManager),
    )
    for name in vars(ours)
    if name.startswith("_") and not name.startswith(("__", "_abc"))
]


@pytest.mark.parametrize(("ours", "theirs", "name"), OVERRIDDEN, ids=[name for _, _, name in OVERRIDDEN])
def test_what_is_overridden_is_there_and_takes_the_same(ours: Any, theirs: Any, name: str) -> None:
    if name == "_next_perturbation_sync":  # an attribute
        assert hasattr(theirs(), name)
        return
    assert list(inspect.signature(getattr(ours, name)).parameters) == list(
        inspect.signature(getattr(theirs, name)).parameters
    )


def test_tune_sleeps_until_something_happens() -> None:
    """Tune's own pause is a tenth of a second, and it is said at each step: `_actor_manager.next(timeout=0.1)`."""
    assert "_actor_manager.next(timeout=" in inspect.getsource(TuneController.step)
    paused: list[float] = []
    controller = SimpleNamespace(_actor_manager=SimpleNamespace(next=lambda timeout: paused.append(timeout)))
    OpenController.sleep(controller, 0.5)  # type: ignore[arg-type]
    controller._actor_manager.next(timeout=0.1)
    assert paused == [0.5]


def test_tune_takes_its_controller_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with controlled_by(OpenController, asked=3):
        assert issubclass(tune.TuneController, OpenController)
        assert tune.TuneController.asked == 3
    assert tune.TuneController is TuneController
    monkeypatch.delattr(tune, "TuneController")
    with pytest.raises(FtlibError, match="in another way than ftlib knows"), controlled_by(OpenController):
        pass


def test_a_job_has_every_callback_of_ray_train_but_the_cleaner(monkeypatch: pytest.MonkeyPatch) -> None:
    class PlacementGroupCleanerCallback:
        pass

    other, cleaner = SimpleNamespace(), PlacementGroupCleanerCallback()
    monkeypatch.setattr(TorchTrainer, "_create_default_callbacks", lambda self: [other, cleaner])
    job = object.__new__(without_cleaner(TorchTrainer))
    assert job._create_default_callbacks() == [other]


def test_placement_groups_are_counted() -> None:
    groups = OpenPlacementGroups()
    assert groups.asked_for == 0
    assert not groups.is_waiting(None)
