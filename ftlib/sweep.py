"""The conductor: one sweep, or one training, on Ray Tune, with the run directory as its truth.

Ray Tune asks the searcher for points, starts trials, lets the scheduler stop them and keeps its own state under
`<run>/tune`. What people and later commands read is written by the `_Conductor` callback and by the trials.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import ray
import ray.tune
from ray.util.placement_group import PlacementGroup, remove_placement_group

from ftlib.config import PBT, Experiment
from ftlib.data import Prepared
from ftlib.errors import ConfigError, FtlibError
from ftlib.estimate import budget as shortest_budget
from ftlib.job import place_of, run_tune_trial
from ftlib.pack.packing import Packing, close, first_host, is_packed, open_packs
from ftlib.pack.seam import residing_in
from ftlib.pack.trainable import Slot
from ftlib.runs import ENDED, Run, Trial, write_json
from ftlib.search import FAILED, draws, make_scheduler, make_search, rungs_for
from ftlib.setting import Setting

TUNE = "tune"
LEAVING_SECONDS = 2.0  # between the end of a trial and that of its actor
SNAPSHOT_SECONDS = "0"  # Tune's own state is saved at every step of its loop, so that a kill finds it fresh


def setting_for(experiment: Experiment, run: Run, data: Prepared) -> Setting:
    """What every trial of this run shares, the scheduler's rungs among it."""
    sweep = experiment.sweep
    tuned = experiment.model.init == "pretrained"  # random weights are no base to compare with
    metric, mode = experiment.objective
    setting = Setting(
        run=str(run.path),
        data=str(data.path),
        resolved=experiment.to_dict(),
        metric=metric,
        mode=mode,
        baseline=tuned,
    )
    if sweep is None:
        return setting
    tokens, steps = shortest_budget(experiment, data.report)
    return replace(
        setting,
        baseline=tuned and sweep.baseline,
        rungs=rungs_for(sweep.scheduler, tokens, steps),
        copies_weights=isinstance(sweep.scheduler, PBT),
    )


def start_ray(cpus: int | None = None) -> None:
    """Connects to the cluster in `RAY_ADDRESS`, or starts a quiet local one."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        ray.init(num_cpus=cpus, include_dashboard=False, **quiet)


def fit(
    experiment: Experiment,
    run: Run,
    data: Prepared,
    resume: bool = False,
    hosts: list[Any] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Runs all trials of `experiment` into `run`, or, with `resume`, those that have not ended.

    `hosts` is what `first_host` gave, where it was asked for earlier. `say` gets a sentence on how trials are packed.
    Raises FtlibError when Tune itself fails. That trials failed is in their `status.json`, not raised.
    """
    _quiet_tune()
    start_ray()
    setting = setting_for(experiment, run, data)
    with run.locked():
        run.log_event("resumed" if resume else "started", host=socket.gethostname(), pid=os.getpid())
        packed = is_packed(run) if resume else True
        hosts = first_host(experiment) if hosts is None and packed else hosts or []
        packing = open_packs(hosts, experiment, data, run, setting, say)
        tuner = _restored(run, setting, packing) if resume else _tuner(experiment, run, setting, packing)
        started = time.monotonic()
        try:
            with residing_in(packing.hosts if packing else None):
                tuner.fit()
        except ray.tune.TuneError as error:
            raise FtlibError(f"Ray Tune ended the sweep: {str(error).strip().splitlines()[-1]}") from error
        finally:
            close(packing)
            _give_back(place_of(run.path, trial.id) for trial in run.trials())
        budget = experiment.sweep.time_budget_s if experiment.sweep else None
        if budget and time.monotonic() - started >= budget:
            _close(run)
        run.log_event("ended", states={trial.id: trial.state for trial in run.trials()})


def _give_back(places: Iterable[PlacementGroup | None]) -> None:
    """Frees what the workers of ended trials held; one that is free already is no error."""
    for place in places:
        if place is not None:
            remove_placement_group(place)


def unfinished(run: Run) -> list[Trial]:
    """The trials that a `resume` would go on with."""
    return [trial for trial in run.trials() if trial.state not in ENDED]


def _close(run: Run) -> None:
    """The time budget is over: Tune has ended what was running without a word to its callbacks."""
    for trial in unfinished(run):
        if trial.state == "pending":
            shutil.rmtree(trial.path)
        else:
            trial.set_state("stopped", "sweep.time_budget_s was over")
            run.log_event("trial_stopped", trial=trial.id, reason="sweep.time_budget_s was over")


def _tuner(experiment: Experiment, run: Run, setting: Setting, packing: Packing | None) -> ray.tune.Tuner:
    sweep = experiment.sweep
    tuned: dict[str, Any] = {}
    if sweep is not None:
        tuned = {
            "metric": sweep.metric,
            "mode": sweep.mode,
            "search_alg": None if setting.copies_weights else make_search(experiment, run.name),
            "scheduler": make_scheduler(experiment, setting.rungs, packed=packing is not None),
            "num_samples": sweep.number_of_trials,
            "time_budget_s": sweep.time_budget_s,
        }
    return ray.tune.Tuner(
        _trainable(setting, packing),
        param_space=draws(experiment) if setting.copies_weights else None,
        tune_config=ray.tune.TuneConfig(
            **tuned,
            max_concurrent_trials=_concurrency(experiment, packing),
            # Imports are paid once an actor, not once a trial. Of other strategies the actor only waits for workers: a
            # stopped trial's actor that is kept would keep them too.
            reuse_actors=experiment.scale.strategy == "single" and packing is None,
            trial_name_creator=_Names(run),
        ),
        run_config=ray.tune.RunConfig(
            name=TUNE,
            storage_path=str(run.path),
            callbacks=[_Conductor(run, setting)],
            failure_config=ray.tune.FailureConfig(max_failures=experiment.scale.max_failures),
            verbose=0,
        ),
    )


def _restored(run: Run, setting: Setting, packing: Packing | None) -> ray.tune.Tuner:
    path = run.path / TUNE
    if not ray.tune.Tuner.can_restore(str(path)):
        raise FtlibError(f"{run.path} ended before its first trial started: run the experiment again.")
    trainable = _trainable(setting, packing)
    return ray.tune.Tuner.restore(str(path), trainable, resume_unfinished=True, resume_errored=False)


def _trainable(setting: Setting, packing: Packing | None) -> Any:
    scale = setting.experiment().scale
    if packing is not None:  # the hosts have the resources
        return ray.tune.with_resources(Slot, ray.tune.PlacementGroupFactory([{"memory": 2**20}]))
    # Tune takes no empty bundle, and the workers of a nested trainer ask for their own resources.
    bundle = dict(scale.resources_per_worker) if scale.strategy == "single" else {"memory": 2**20}
    trainable = ray.tune.with_parameters(run_tune_trial, setting=setting)
    return ray.tune.with_resources(trainable, ray.tune.PlacementGroupFactory([bundle]))


def _concurrency(experiment: Experiment, packing: Packing | None) -> int | None:
    """How many trials at once. Tune does not reserve the workers of a nested TorchTrainer: without a bound, trials
    would wait for each other's workers for ever."""
    asked = experiment.sweep.max_concurrent_trials if experiment.sweep else None
    scale = experiment.scale
    if packing is not None:
        return min(packing.slots, asked or packing.slots)
    if scale.strategy == "single":
        return asked
    have = ray.cluster_resources()
    fits = min(int(have.get(name, 0) // (amount * scale.num_workers)) for name, amount in _wanted(experiment).items())
    return max(1, min(fits, asked or fits))  # a cluster may have to grow for its first trial


def _wanted(experiment: Experiment) -> dict[str, float]:
    return {name: amount for name, amount in experiment.scale.resources_per_worker.items() if amount}


def check_resources(experiment: Experiment) -> None:
    """A trial that fits nowhere would wait for ever: said now, unless a cluster may still grow."""
    if os.environ.get("RAY_ADDRESS"):
        return
    have = ray.cluster_resources()
    for name, amount in _wanted(experiment).items():
        total = amount * experiment.scale.num_workers
        if have.get(name, 0) < total:
            raise ConfigError(
                f"scale.resources_per_worker.{name}: a trial needs {total:g} {name}, but this machine has "
                f"{have.get(name, 0):g}: lower it, or set RAY_ADDRESS to a cluster."
            )


class _Names:
    """Trials are called 000 (`FIRST`), 001, ... in the order in which they were proposed, also after a resume."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, trial: Any) -> str:
        for number in range(len(self.run.trials()), 10**6):
            try:
                self.run.trial(f"{number:03d}").path.mkdir()
            except FileExistsError:
                continue
            return f"{number:03d}"
        raise FtlibError("a run holds at most a million trials.")


class _Conductor(ray.tune.Callback):
    """Writes what Tune decides into the run directory: params, states, events."""

    def __init__(self, run: Run, setting: Setting) -> None:
        self.run, self.setting = run, setting
        self.leaving: list[tuple[float, PlacementGroup | None]] = []

    def setup(self, **info: Any) -> None:
        self.known: set[str] | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Once, before the first step: directories of trials that Tune's last state does not know are dropped."""
        if self.known is None:
            self.known = {str(trial) for trial in trials}
            for trial in self.run.trials():
                if trial.id not in self.known:
                    self.run.log_event("forgotten", trial=trial.id, why="proposed just before the driver was killed")
                    shutil.rmtree(trial.path, ignore_errors=True)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Gives back the workers of ended trials. A stopped trial's Train controller dies with its actor, and Ray
        leaves the placement group standing: its own cleaner asks the dashboard, which need not run."""
        gone = [place for ended, place in self.leaving if time.monotonic() - ended >= LEAVING_SECONDS]
        self.leaving = self.leaving[len(gone) :]
        _give_back(gone)

    def _leave(self, trial: Any) -> None:
        self.leaving.append((time.monotonic(), place_of(self.run.path, str(trial))))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        ours = self.run.trial(str(trial))
        if ours.state in ENDED:  # the driver was killed between our note of its end and Tune's own
            return
        write_json(ours.path / "params.json", self.setting.experiment().resolve_ratios(trial.config))
        ours.set_state("running")
        self.run.log_event("trial_started", trial=ours.id, failures=trial.num_failures)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)
        ours, result = self.run.trial(str(trial)), trial.last_result or {}
        if FAILED in result:
            self._end(ours, "failed", result[FAILED])
        elif result.get("finished") or result.get("progress", 0) >= 1:  # a scheduler may stop it at its last evaluation
            self._end(ours, "finished", None)
        else:
            self._end(ours, "stopped", f"by the scheduler at {result.get('tokens', 0):,} tokens")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)
        times = f" {trial.num_failures} times" if trial.num_failures > 1 else ""
        self._end(
            self.run.trial(str(trial)), "failed", f"its process died{times} (killed, or the machine ran out of memory)"
        )

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._leave(trial)
        self.run.log_event("trial_recovered", trial=str(trial), failures=trial.num_failures)

    def _end(self, trial: Trial, state: Any, reason: str | None) -> None:
        trial.set_state(state, reason)
        self.run.log_event(f"trial_{state}", trial=trial.id, reason=reason)


def _quiet_tune() -> None:
    """Tune's own tables and warnings stand aside for ours; its state is saved often."""
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = SNAPSHOT_SECONDS
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a failed trial's report has no metric
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


__all__ = ["check_resources", "first_host", "fit", "setting_for", "start_ray", "unfinished"]
