"""One sweep, or one training, on Ray Tune, with the run directory as its truth.

Ray Tune asks the searcher for points, starts trials, lets the scheduler stop them and keeps its own state under
`<run>/tune`. What people and later commands read is written by the `Conductor` and by the trials.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
import ray.tune

from ftlib.cluster.fair_share import Shares, shared
from ftlib.cluster.interrupt import interruptible
from ftlib.cluster.session import start_ray, wanted
from ftlib.config import PBT, Experiment
from ftlib.config.objectives import judged_by
from ftlib.data import Prepared
from ftlib.errors import FtlibError, StorageError
from ftlib.run import signature
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from ftlib.run.layout import TUNE
from ftlib.run.places import content_of_data, key_of
from ftlib.sweeps.callback import give_back
from ftlib.sweeps.conductor import Conductor
from ftlib.sweeps.controller import conducting
from ftlib.sweeps.eval_part import part_of
from ftlib.sweeps.pack_hosts import Hosts
from ftlib.sweeps.pack_plan import dismiss, first_hosts, is_packed, open_packs
from ftlib.sweeps.packed_trial import Slot
from ftlib.sweeps.prior import prior
from ftlib.sweeps.rungs import rungs_of, why_never_stopped
from ftlib.sweeps.schedulers import draws, make_scheduler
from ftlib.sweeps.search import check_storage, make_search
from ftlib.sweeps.snapshot import has_state, lay_out
from ftlib.sweeps.solo_trial import run_tune_trial, workers_place


def setting_for(experiment: Experiment, run: Run, data: Prepared) -> Setting:
    """What every trial of this run shares, the scheduler's rungs among it."""
    sweep = experiment.sweep
    # Random weights are no base to compare with, where no rows are held out nothing is compared, and of some methods no
    # base has numbers that say something.
    comparable = experiment.data.held_out and experiment.method.has_zero_shot
    tuned = experiment.model.init == "pretrained" and comparable
    metric, mode = experiment.objective
    setting = Setting(
        run=str(run.path),
        data=str(data.path),
        resolved=experiment.to_dict(),
        metric=metric,
        mode=mode,
        judged_by=judged_by(experiment),
        baseline=tuned,
        key=key_of(run),
        data_content=content_of_data(run, data.path),
        data_versions=run.data_versions,
        trusted=signature.was_trusted(run),
    )
    if sweep is None:
        return setting
    return replace(
        setting,
        baseline=tuned and sweep.baseline,
        rungs=rungs_of(experiment, data.report),
        part=part_of(run, len(data.eval)),
        copies_weights=isinstance(sweep.scheduler, PBT),
    )


def fit(
    experiment: Experiment,
    run: Run,
    data: Prepared,
    resume: bool = False,
    first: list[Any] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Runs all trials of `experiment` into `run`, or, with `resume`, those that have not ended.

    `first` is what `first_hosts` gave, where it was asked for earlier. `say` gets a sentence on how trials are packed.
    Raises FtlibError when Tune itself fails, and KeyboardInterrupt after a Ctrl-C or a SIGTERM, when trials have saved
    where they stand. That trials failed is in their `status.json`, not raised.
    """
    _quiet_tune()
    start_ray()
    setting = setting_for(experiment, run, data)
    with run.locked(), shared(Shares(run.name, experiment.scale)) as shares:
        run.log_event("resumed" if resume else "started", host=socket.gethostname(), pid=os.getpid())
        _sweep_up(run)
        first = first_hosts(experiment) if first is None and is_packed(run) else first or []
        hosts = open_packs(first, experiment, data, run, setting, say)
        try:
            if experiment.sweep is not None and (why := why_never_stopped(experiment, data.report)):
                run.log_event("never_stopped", why=why)
                say(why)
            again = resume and _begun(run)
            first_points = [] if again else _prior(experiment, run, say)
            tuner = _restored(run, setting, hosts) if again else _tuner(experiment, run, setting, hosts, first_points)
            started = time.monotonic()
            conductor = Conductor(run, setting, hosts, shares, say)
            asked = experiment.sweep.max_concurrent_trials if experiment.sweep else None
            with conducting(conductor, asked), interruptible(conductor.interrupt.heard):
                tuner.fit()
        except ray.tune.TuneError as error:
            raise _why_it_ended(str(error).strip().splitlines()[-1]) from error
        finally:
            if hosts is not None:
                hosts.close()
            give_back(workers_place(run.path, trial.id) for trial in run.trials())
        budget = experiment.sweep.time_budget_s if experiment.sweep else None
        _sweep_up(run)
        over = conductor.budget.over
        if budget and time.monotonic() - started >= budget:
            over = "sweep.time_budget_s was over"
        if over is not None:
            _close(run, over)
        run.log_event("ended", states={trial.id: trial.state for trial in run.trials()})
    if conductor.interrupt.since is not None:
        run.log_event("interrupted")
        raise KeyboardInterrupt


def _begun(run: Run) -> bool:
    """Whether there is a state of Tune's to go on with. Where it ended before its first trial, it begins now."""
    begun = has_state(run.path / TUNE)
    for trial in run.trials() if not begun else ():
        if trial.state == "pending":
            shutil.rmtree(trial.path)
    return begun or bool(run.trials())


def _sweep_up(run: Run) -> None:
    """Removes what killed processes have left half written. No process writes at this moment."""
    freed = sum(trial.sweep_up() for trial in run.trials())
    if freed:
        run.log_event("orphans_removed", bytes=freed)


def _why_it_ended(line: str) -> FtlibError:
    """The error for the last line of a traceback, which is all that Tune hands on."""
    kind, _, sentence = line.partition(": ")
    if kind.endswith(StorageError.__name__):
        return StorageError(sentence)
    return FtlibError(f"Ray Tune ended the sweep: {line}")


def _close(run: Run, over: str) -> None:
    """A budget is over: what had not begun is forgotten; of time, Tune has ended what ran without a word to
    callbacks."""
    for trial in run.unfinished():
        if trial.state == "pending":
            shutil.rmtree(trial.path)
        else:
            trial.set_state("stopped", over)
            run.log_event("trial_stopped", trial=trial.id, reason=over)


def _prior(experiment: Experiment, run: Run, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The first points that `sweep.prior` asks for."""
    if experiment.sweep is None or experiment.sweep.prior is None:
        return []
    found = prior(experiment, run.path.parent, run.name)
    run.log_event("prior", points=found.points, why=found.sentence)
    say(found.sentence)
    return found.points


def _tuner(
    experiment: Experiment, run: Run, setting: Setting, hosts: Hosts | None, first: list[dict[str, Any]]
) -> ray.tune.Tuner:
    sweep = experiment.sweep
    tuned: dict[str, Any] = {}
    if sweep is not None:
        tuned = {
            "metric": setting.metric,
            "mode": setting.mode,
            "search_alg": None if setting.copies_weights else make_search(experiment, run.name, run.path, first),
            "scheduler": make_scheduler(experiment, setting.rungs, packed=hosts is not None),
            "num_samples": sweep.number_of_trials,
            "time_budget_s": sweep.time_budget_s,
        }
    return ray.tune.Tuner(
        _trainable(setting, hosts),
        param_space=draws(experiment) if setting.copies_weights else None,
        tune_config=ray.tune.TuneConfig(
            **tuned,
            max_concurrent_trials=_concurrency(experiment, hosts),
            # Imports are paid once an actor, not once a trial. Of other strategies the actor only waits for workers: a
            # stopped trial's actor that is kept would keep them too.
            reuse_actors=experiment.scale.strategy == "single" and hosts is None,
            trial_name_creator=_Names(run),
        ),
        run_config=ray.tune.RunConfig(
            name=TUNE,
            storage_path=str(run.path),
            failure_config=ray.tune.FailureConfig(max_failures=experiment.scale.max_failures),
            verbose=0,
        ),
    )


def _restored(run: Run, setting: Setting, hosts: Hosts | None) -> ray.tune.Tuner:
    path = run.path / TUNE
    lay_out(path)
    check_storage(setting.experiment())
    trainable = _trainable(setting, hosts)
    return ray.tune.Tuner.restore(str(path), trainable, resume_unfinished=True, resume_errored=False)


def _trainable(setting: Setting, hosts: Hosts | None) -> Any:
    scale = setting.experiment().scale
    if hosts is not None:  # the hosts have the resources
        return ray.tune.with_resources(Slot, ray.tune.PlacementGroupFactory([{"memory": 2**20}]))
    # Tune takes no empty bundle, and the workers of a nested trainer ask for their own resources.
    bundle = dict(scale.resources_per_worker) if scale.strategy == "single" else {"memory": 2**20}
    trainable = ray.tune.with_parameters(run_tune_trial, setting=setting)
    return ray.tune.with_resources(trainable, ray.tune.PlacementGroupFactory([bundle]))


def _concurrency(experiment: Experiment, hosts: Hosts | None) -> int | None:
    """How many trials at once. Tune does not reserve the workers of a nested TorchTrainer: without a bound, trials
    would wait for each other's workers for ever."""
    asked = experiment.sweep.max_concurrent_trials if experiment.sweep else None
    scale = experiment.scale
    if hosts is not None:
        return max(1, hosts.slots)  # it changes as hosts come and go: `Controller`
    if scale.strategy == "single":
        return asked
    have = ray.cluster_resources()
    fits = min(int(have.get(name, 0) // (amount * scale.num_workers)) for name, amount in wanted(experiment).items())
    return max(1, min(fits, asked or fits))  # a cluster may have to grow for its first trial


class _Names:
    """Trials are called after their directories, also after a resume."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self, trial: Any) -> str:
        return self.run.new_trial().id


def _quiet_tune() -> None:
    """Turns off Tune's own tables and warnings: ftlib prints its own."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # ours lets trials save first
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # a failed trial's report has no metric
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


__all__ = ["dismiss", "first_hosts", "fit", "setting_for"]
