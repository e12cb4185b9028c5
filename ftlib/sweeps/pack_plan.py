"""How a sweep comes to its packs: whether its trials can share a base, how many hosts, how wide each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from ftlib.config import Experiment
from ftlib.config.packs import why_not_packed
from ftlib.data import Prepared
from ftlib.errors import ConfigError, FtlibError
from ftlib.files.atomic import write_json
from ftlib.files.json_files import read_json
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from ftlib.run.layout import PACK_FILE
from ftlib.sweeps.pack_host import Host, Opening
from ftlib.sweeps.pack_hosts import Hosts
from ftlib.training.estimate import estimate

MOST = 64  # slots of a host, whatever the estimate
FLOPS_A_PARAMETER = 5  # of a token: forward 2, gradient of the inputs 2, adapters and attention the rest
FLOPS_A_SECOND = 2e10  # of a core, at the least
WORTH_SECONDS = 10.0  # of a core's work, by that estimate, that make another host worth its start
ROW_SHARE = 1 / 3  # of data.max_length: how long a row is, before any is read
BYTES = 4  # of a parameter in the files of a base


def first_hosts(experiment: Experiment) -> list[Any]:
    """The first hosts of the sweep, importing already; none where its trials are not packed.

    Raises ConfigError where packs of a width were asked for and cannot be.
    """
    sweep = experiment.sweep
    if sweep is None or sweep.pack == "off":
        return []
    reason = why_not_packed(experiment)
    if reason is not None:
        if sweep.pack != "auto":
            raise ConfigError(f"sweep.pack: {reason}, or sweep.pack: off.")
        return []
    return [_new_host(experiment) for _ in range(_begin_with(experiment, _guessed(experiment)))]


def dismiss(hosts: list[Any]) -> None:
    """Ends what `first_hosts` gave, where no sweep comes of it."""
    for host in hosts:
        ray.kill(host)


def _new_host(experiment: Experiment) -> Any:
    scale = experiment.scale
    resources = {name: amount for name, amount in scale.resources_per_worker.items() if name not in ("CPU", "GPU")}
    actor = ray.remote(Host).options(
        num_cpus=scale.resources_per_worker.get("CPU", 0),
        num_gpus=scale.resources_per_worker.get("GPU", 0),
        resources=resources,
        max_concurrency=2 * MOST + 8,  # each trial waits in a thread of its own
        scheduling_strategy="SPREAD",  # a lost machine takes fewer trials with it
    )
    return actor.remote(experiment.to_dict())


def _fits(experiment: Experiment) -> int:
    """How many hosts the cluster has room for now."""
    have = ray.cluster_resources()
    wanted = {name: amount for name, amount in experiment.scale.resources_per_worker.items() if amount}
    return max(1, min((int(have.get(name, 0) // amount) for name, amount in wanted.items()), default=1))


def _begin_with(experiment: Experiment, most: int) -> int:
    """How many hosts at once: as many as fit now, no more than trials, or than packs of the width that was asked
    for."""
    sweep = experiment.sweep
    assert sweep is not None
    trials = min(sweep.number_of_trials, sweep.max_concurrent_trials or sweep.number_of_trials)
    packs = trials if sweep.pack == "auto" else math.ceil(trials / int(sweep.pack))
    return max(1, min(_fits(experiment), packs, most))


def _worth(experiment: Experiment, data: Prepared) -> int:
    """How many hosts have work enough to be worth their start, the imports of a process: hosts of one thread compute
    small products faster than the threads of one host do. More than fit now only where the cluster may grow."""
    sweep = experiment.sweep
    assert sweep is not None
    cluster = bool(os.environ.get("RAY_ADDRESS"))
    most = sweep.number_of_trials if cluster else _fits(experiment)
    if experiment.scale.use_gpu or (cluster and sweep.pack != "auto"):
        return most
    cost = estimate(experiment, data.report)
    return max(1, min(most, _hosts_for(experiment, cost.tokens, cost.multiplied_parameters)))


def _guessed(experiment: Experiment) -> int:
    """The same before the data is read, from the steps and the size of the base's files; 1 where these do not say."""
    steps, rows = experiment.train.max_steps, experiment.train.per_device_train_batch_size
    files = Path(experiment.model.name_or_path).glob("*.safetensors")
    if experiment.scale.use_gpu or os.environ.get("RAY_ADDRESS"):
        return 1
    tokens = (steps or 0) * rows * experiment.data.max_length * ROW_SHARE
    return max(1, _hosts_for(experiment, tokens, sum(file.stat().st_size for file in files) / BYTES))


def _hosts_for(experiment: Experiment, tokens: float, parameters: float) -> int:
    """By the work of trials of so many tokens each."""
    assert experiment.sweep is not None
    operations = experiment.sweep.number_of_trials * tokens * parameters * FLOPS_A_PARAMETER
    return math.ceil(operations / FLOPS_A_SECOND / WORTH_SECONDS)


def open_packs(
    first: list[Any],
    experiment: Experiment,
    data: Prepared,
    run: Run,
    setting: Setting,
    say: Callable[[str], None],
) -> Hosts | None:
    """Loads the base in every host and estimates the width; None where this base cannot be packed and nobody insisted.

    Raises FtlibError where a pack was asked for, or where the run has begun in packs, and cannot go on so.
    """
    sweep = experiment.sweep
    if sweep is None or sweep.pack == "off":
        return None
    if not first:
        _one_by_one(why_not_packed(experiment), run, say)
        return None
    begun = read_json(run.path / PACK_FILE, dict) or {}
    fixed = int(sweep.pack) if sweep.pack != "auto" else None
    worth = _worth(experiment, data)
    number = _begin_with(experiment, worth)
    trials = min(sweep.number_of_trials, sweep.max_concurrent_trials or sweep.number_of_trials)
    most = min(MOST, math.ceil(trials / number))
    cores = experiment.scale.resources_per_worker.get("CPU", 1)
    spare = (
        1 if os.environ.get("RAY_ADDRESS") else _fits(experiment) // number
    )  # of this machine, what no other host takes
    threads = max(1, int(cores * spare))
    opening = Opening(setting, most, min(fixed, most) if fixed else None, False, threads, _found_before(run, begun))
    hosts = Hosts(partial(_new_host, experiment), opening, max(number, worth), partial(_tell, run))
    dismiss(first[number:])
    hosts.open_beside(first[1:number], number - 1)
    try:
        found = hosts.open_first(first[0], replace(opening, baseline=setting.baseline))
    except FtlibError as error:
        hosts.close()
        sentence = str(getattr(error, "cause", error))
        if fixed or begun:
            raise FtlibError(f"sweep.pack: {sentence}: use sweep.pack: off.") from error
        _one_by_one(sentence, run, say)
        return None
    hosts.opening = replace(opening, most=found["slots"], before=found)  # others have no more than the first
    write_json(run.path / PACK_FILE, {**begun, "hosts": number, "found": found})
    sentence = found["sentence"] + (f", {number} of them" if number > 1 else "")
    run.log_event("packed", width=found["width"], slots=found["slots"], hosts=number, sentence=sentence)
    say(sentence)
    hosts.look()
    return hosts


def _found_before(run: Run, begun: dict[str, Any]) -> dict[str, Any] | None:
    """What the first host of an earlier driver found, with the width that its trials then measured."""
    found: dict[str, Any] = begun.get("found") or {}
    for event in run.events() if found else ():
        if event["event"] == "pack_paced" and event["of"] == found["of"]:
            found = {**found, "width": event["width"], "rates": event["rates"]}
    return found or None


def _tell(run: Run, event: str, **details: Any) -> None:
    """Writes what a host found into the run's events. What the run promises of isolation is what its weakest host
    gives."""
    run.log_event(event, **details)
    if event == "host_opened":
        known, isolation = read_json(run.path / PACK_FILE, dict) or {}, details["isolation"]
        if "isolation" not in known or _weaker(isolation, known["isolation"]):
            write_json(run.path / PACK_FILE, {**known, "isolation": isolation})


def _weaker(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["promise"] != "bits", one["off"]) > (other["promise"] != "bits", other["off"])


def _one_by_one(why: str | None, run: Run, say: Callable[[str], None]) -> None:
    if why is not None:
        run.log_event("not_packed", why=why)
        say(f"trials are trained one by one: {why}")


def is_packed(run: Run) -> bool:
    """Whether the trials of a run that has begun are in packs."""
    return (run.path / PACK_FILE).exists()
