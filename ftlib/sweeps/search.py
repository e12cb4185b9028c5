"""Who proposes: the experiment's `search` as Ray Tune's object."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from ftlib import config
from ftlib.config import Experiment, SweepSection
from ftlib.config.objectives import Constraint, constraints
from ftlib.config.space import Leaf
from ftlib.errors import ConfigError
from ftlib.run import passwords
from ftlib.run.layout import STUDY
from ftlib.sweeps.optuna_private import OpenSearch, holds
from ftlib.sweeps.samplers import VIOLATIONS, make_sampler

logger = logging.getLogger(__name__)

RUN_ATTRIBUTE = "ftlib_run"
IN_RUN = "run"  # sweep.search.storage: a file in the run directory
FAILED = "failure"  # the key under which a trial reports why it could not be trained


class StudySearch(OpenSearch):
    """Ray's OptunaSearch, made to survive what sweeps meet.

    A failed trial is told as FAIL and not left running for ever (Ray's tells it nothing after a NaN); results without
    the metric are passed over; after a crash the study, which may be ahead of Ray's snapshot when it lives in a
    database, is brought in line instead of ending the sweep (`UpdateFinishedTrialError`).
    """

    def __init__(self, *args: Any, run: str, bounds: Sequence[Constraint] = (), **kwargs: Any) -> None:
        self._run, self._bounds = run, tuple(bounds)
        self._kept: dict[str, dict[str, Any]] = {}  # of several objectives: each trial's best result by the first
        super().__init__(*args, **kwargs)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        params: dict[str, Any] | None = super().suggest(trial_id)
        self.asked[trial_id].set_user_attr(RUN_ATTRIBUTE, self._run)
        return params

    def adopt(self, trial_id: str, point: dict[str, Any], proposed: bool = False) -> None:
        """Tells the study of a trial that it does not know, so that it learns from it.

        A point outside of the space is left out. A point that the study has `proposed` and forgotten leaves its queue:
        it is not proposed twice.
        """
        known = {path: value for path, value in point.items() if path in self.space}
        if all(holds(self.space[path], value) for path, value in known.items()):
            self.take_over(trial_id, known, queued=proposed).set_user_attr(RUN_ATTRIBUTE, self._run)

    def reseed(self) -> None:
        """After a state that lagged: its random numbers have been drawn once already."""
        self.study.sampler.reseed_rng()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        new = not result.get("finished") and trial_id not in self.completed
        if new and isinstance(self.metric, list):
            self._keep(trial_id, result)
        elif new and math.isfinite(result.get(self.metric, math.nan)):
            try:
                self.asked[trial_id].report(result[self.metric], result["step"])
            except RuntimeError:  # optuna's UpdateFinishedTrialError among them: the study knows already
                logger.debug("the study has already ended trial %s", trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id in self.completed or trial_id not in self.asked:
            return
        self.completed.add(trial_id)
        result = result or {}
        failed = error or FAILED in result
        if isinstance(self.metric, list):  # the numbers of the weights that the trial keeps
            self._keep(trial_id, result)
            result = self._kept.pop(trial_id, {})
        names = self.metric if isinstance(self.metric, list) else [self.metric]
        values = [_number(result, name) for name in names]
        broken = [bound.violation(_number(result, bound.metric)) for bound in self._bounds]
        failed = failed or not all(map(math.isfinite, (*values, *broken)))
        state = optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE
        if self._bounds and not failed:
            self.asked[trial_id].set_user_attr(VIOLATIONS, broken)
        self.study.tell(self.asked[trial_id], None if failed else values, state=state, skip_if_finished=True)

    def _keep(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keeps the result whose weights the trial keeps: the best by the first metric."""
        first, sign = self.metric[0], -1 if self.mode[0] == "max" else 1
        best = self._kept.get(trial_id)
        if math.isfinite(_number(result, first)) and (best is None or sign * (result[first] - best[first]) <= 0):
            self._kept[trial_id] = result

    def restore(self, checkpoint_path: str) -> None:
        """Besides Ray's own: proposals of this run that the snapshot does not know will never be heard of again."""
        super().restore(checkpoint_path)
        known = {trial.number for trial in self.asked.values()}
        running = (optuna.trial.TrialState.RUNNING,)
        for trial in self.study.get_trials(deepcopy=False, states=running):
            if trial.user_attrs.get(RUN_ATTRIBUTE) == self._run and trial.number not in known:
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _number(result: dict[str, Any], metric: str) -> float:
    value = result.get(metric)
    return float(value) if isinstance(value, int | float) else math.nan


def make_search(
    experiment: Experiment, run: str, place: Path | None = None, first: Sequence[dict[str, Any]] = ()
) -> StudySearch:
    """The searcher. Grid search is a queue of all its points; random search is Optuna's random sampler.

    `run` is the name of the run, and `place` its directory, where a study may be kept. `first` are points, or parts of
    points, that are proposed first.
    """
    sweep = swept(experiment)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage, points = None, None
    objectives, bounds = experiment.objectives, constraints(sweep.constraints)
    sampler: optuna.samplers.BaseSampler
    if isinstance(sweep.search, config.OptunaSearch):
        sampler = make_sampler(sweep.search, bool(bounds), any(leaf.only for leaf in sweep.leaves))
        storage = _storage(sweep.search.storage, place)
    elif isinstance(sweep.search, config.RandomSearch):
        sampler = optuna.samplers.RandomSampler(seed=sweep.search.seed)
    else:
        sampler = optuna.samplers.RandomSampler(seed=0)
        points = sweep.grid_points()
    try:
        search = StudySearch(
            space={leaf.name: _distribution(experiment, leaf) for leaf in sweep.leaves},
            only={leaf.name: leaf.only for leaf in sweep.leaves if leaf.only is not None},
            metric=_alone([metric for metric, _ in objectives]),
            mode=_alone([mode for _, mode in objectives]),
            sampler=sampler,
            storage=storage,
            study_name=experiment.name if storage else None,
            points_to_evaluate=points,
            run=run,
            bounds=bounds,
        )
        for point in first:
            search.study.enqueue_trial(point, skip_if_exists=True)
        return search
    except ValueError as error:
        raise ConfigError(
            f"sweep.space: the study '{experiment.name}' in that database has another space: {error}"
        ) from error


def _alone(values: list[str]) -> str | list[str]:
    """Ray takes one, or a list of several."""
    return values if len(values) > 1 else values[0]


def swept(experiment: Experiment) -> SweepSection:
    """The sweep section, which is there."""
    assert experiment.sweep is not None
    return experiment.sweep


class Database(optuna.storages.RDBStorage):
    """Optuna's, whose password is in no pickle: Tune keeps the searcher in the run directory."""

    def __getstate__(self) -> dict[Any, Any]:
        state: dict[Any, Any] = super().__getstate__()
        return {**state, "url": passwords.without(state["url"])}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__({**state, "url": passwords.whole(state["url"])})


def check_storage(experiment: Experiment) -> None:
    """Raises ConfigError where the study's database cannot be opened."""
    search = experiment.sweep.search if experiment.sweep else None
    if isinstance(search, config.OptunaSearch):
        _storage(search.storage, None)


def _storage(url: str | None, place: Path | None) -> optuna.storages.BaseStorage | None:
    if url == IN_RUN:
        url = f"sqlite:///{place / STUDY}" if place is not None else None
    if url is None:
        return None
    bare = passwords.without(url)
    try:
        return Database(passwords.whole(url), engine_kwargs={"pool_pre_ping": True})
    except Exception as error:
        passwords.keep(url)
        reason = passwords.hidden(str(error).strip().splitlines()[0])
        raise ConfigError(
            f"sweep.search.storage: '{bare}' cannot be opened: {reason}. Its password is in no run: where it is "
            "missing, set "
            f"{passwords.VARIABLE} to the whole URL."
        ) from None


def _distribution(experiment: Experiment, leaf: Leaf) -> optuna.distributions.BaseDistribution:
    dimension = leaf.dimension
    if not isinstance(dimension, config.Range):
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    if experiment.is_integer(leaf.name):
        return optuna.distributions.IntDistribution(
            int(dimension.min), int(dimension.max), log=dimension.log, step=int(dimension.q or 1)
        )
    return optuna.distributions.FloatDistribution(dimension.min, dimension.max, log=dimension.log, step=dimension.q)
