"""What Optuna, and Ray Tune's `OptunaSearch`, have no public name for; read at Optuna 5.0 and Ray 2.60.

`tests/sweeps/test_optuna_private.py` asks for each name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch


class OpenSearch(OptunaSearch):
    """Ray's OptunaSearch, whose study can be read."""

    def __init__(self, *args: Any, only: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        """`only`: names that are drawn only where another has a value."""
        self._only = dict(only or {})
        super().__init__(*args, **kwargs)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self._only:
            found: dict[str, Any] | None = super().suggest(trial_id)
            return found
        if trial_id not in self._ot_trials:
            self._ot_trials[trial_id] = self.study.ask()
            self._draw(self._ot_trials[trial_id])
        return dict(self._ot_trials[trial_id].params)

    def _draw(self, trial: optuna.Trial) -> None:
        for path, distribution in self.space.items():
            of = self._only.get(path)
            if of is None or trial.params.get(of[0]) == of[1]:
                trial._suggest(path, distribution)

    @property
    def study(self) -> optuna.Study:
        """The Optuna study that proposes points."""
        return self._ot_study

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Dotted paths to what they are drawn from."""
        space: dict[str, BaseDistribution] = self._space
        return space

    @property
    def asked(self) -> dict[str, optuna.Trial]:
        """Tune's trial ids to the study's trials."""
        asked: dict[str, optuna.Trial] = self._ot_trials
        return asked

    @property
    def completed(self) -> set[str]:
        """Tune's ids of the trials whose end the study knows."""
        completed: set[str] = self._completed_trials
        return completed

    def take_over(self, trial_id: str, known: dict[str, Any], queued: bool) -> optuna.Trial:
        """The study's trial for a point that is trained already.

        With `queued` the point is taken out of the study's own queue, where it is in it: the study proposes it once.
        """
        waiting = (
            [trial for trial in self._queue() if trial.system_attrs.get("fixed_params") == known] if queued else []
        )
        number = self._start(waiting[0]) if waiting else self._create(known)
        trial = self._ot_trials[trial_id] = optuna.Trial(self.study, number)
        self._draw(trial)
        return trial

    def _queue(self) -> list[optuna.trial.FrozenTrial]:
        found: list[optuna.trial.FrozenTrial] = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return found

    def _start(self, waiting: optuna.trial.FrozenTrial) -> int:
        self.study._storage.set_trial_state_values(waiting._trial_id, state=TrialState.RUNNING)
        return int(waiting._trial_id)

    def _create(self, known: dict[str, Any]) -> int:
        fixed = {"fixed_params": known}
        like = optuna.trial.create_trial(state=TrialState.RUNNING, params={}, distributions={}, system_attrs=fixed)
        return int(self.study._storage.create_new_trial(self.study._study_id, template_trial=like))


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value can be drawn from a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution._contains(distribution.to_internal_repr(value)))
