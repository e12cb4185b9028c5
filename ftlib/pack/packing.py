"""How a sweep comes to its packs: whether its trials can share a base, how many hosts, how wide each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray

from ftlib.config import Experiment
from ftlib.config.packs import why_not_packed
from ftlib.data import Prepared
from ftlib.errors import ConfigError, FtlibError
from ftlib.estimate import estimate
from ftlib.pack.host import Host, Opening
from ftlib.pack.seam import Hosts
from ftlib.runs import Run, read_json, write_json
from ftlib.setting import Setting

PACK_FILE = "pack.json"  # in the run directory: that its trials are in packs, and what was measured
MOST = 64  # slots of a host, whatever is measured
FLOPS_A_PARAMETER = 5  # of a token: forward 2, gradient of the inputs 2, adapters and attention the rest
FLOPS_A_SECOND = 2e10  # of a core, at the least
WORTH_SECONDS = 400.0  # of work, by that estimate, that make another host worth its start


@dataclass
class Packing:
    """The hosts of a run, and how many trials they hold at once."""

    hosts: Hosts
    slots: int
    sentence: str


def first_host(experiment: Experiment) -> list[Any]:
    """The first host of the sweep, importing already; none where its trials are not packed.

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
    return [_new_host(experiment)]


def _new_host(experiment: Experiment) -> Any:
    scale = experiment.scale
    resources = {name: amount for name, amount in scale.resources_per_worker.items() if name not in ("CPU", "GPU")}
    actor = ray.remote(Host).options(
        num_cpus=scale.resources_per_worker.get("CPU", 0),
        num_gpus=scale.resources_per_worker.get("GPU", 0),
        resources=resources,
        max_concurrency=2 * MOST + 8,  # each trial waits in a thread of its own
        max_restarts=-1,
    )
    return actor.remote()


def _fits(experiment: Experiment) -> int:
    """How many hosts the cluster holds now."""
    have = ray.cluster_resources()
    wanted = {name: amount for name, amount in experiment.scale.resources_per_worker.items() if amount}
    return max(1, min((int(have.get(name, 0) // amount) for name, amount in wanted.items()), default=1))


def _number(experiment: Experiment, data: Prepared) -> int:
    """How many hosts: as many as fit; no more than trials, or than packs of the width that was asked for; and, on CPUs,
    no more than have work enough to be worth their start (the imports of a process are seconds of a core)."""
    sweep = experiment.sweep
    assert sweep is not None
    trials = min(sweep.number_of_trials, sweep.max_concurrent_trials or sweep.number_of_trials)
    packs = trials if sweep.pack == "auto" else math.ceil(trials / int(sweep.pack))
    most = min(_fits(experiment), packs)
    if experiment.scale.use_gpu or most == 1:
        return max(1, most)
    cost = estimate(experiment, data.report)
    seconds = sweep.number_of_trials * cost.tokens * cost.total_parameters * FLOPS_A_PARAMETER / FLOPS_A_SECOND
    return max(1, min(most, math.ceil(seconds / WORTH_SECONDS)))


def open_packs(
    first: list[Any],
    experiment: Experiment,
    data: Prepared,
    run: Run,
    setting: Setting,
    say: Callable[[str], None],
) -> Packing | None:
    """Loads the base in every host and measures; None where this base cannot be packed and nobody insisted.

    Raises FtlibError where a pack was asked for, or where the run has begun in packs, and cannot go on so.
    """
    sweep = experiment.sweep
    if sweep is None or sweep.pack == "off":
        return None
    if not first:
        _one_by_one(why_not_packed(experiment), run, say)
        return None
    number = _number(experiment, data)
    handles = [*first, *(_new_host(experiment) for _ in range(number - 1))]
    begun = read_json(run.path / PACK_FILE)
    fixed = int(sweep.pack) if sweep.pack != "auto" else None
    trials = min(sweep.number_of_trials, sweep.max_concurrent_trials or sweep.number_of_trials)
    most = min(MOST, math.ceil(trials / len(handles)))
    cores = experiment.scale.resources_per_worker.get("CPU", 1)
    threads = max(1, int(cores * (_fits(experiment) // number)))  # what no other host takes
    width = min(fixed, most) if fixed else None
    openings = [Opening(setting, most, width, setting.baseline and each is first[0], threads) for each in handles]
    try:
        measured = ray.get([each.open.remote(opening) for each, opening in zip(handles, openings, strict=True)])
    except FtlibError as error:
        _end(handles)
        sentence = str(getattr(error, "cause", error))
        if fixed or begun:
            raise FtlibError(f"sweep.pack: {sentence}: use sweep.pack: off.") from error
        _one_by_one(sentence, run, say)
        return None
    widths = [each["width"] for each in measured]
    write_json(run.path / PACK_FILE, {"hosts": len(handles), "measured": measured})
    sentence = measured[0]["sentence"] if not fixed else f"pack width {widths[0]}"
    sentence += f", {len(handles)} of them" if len(handles) > 1 else ""
    run.log_event("packed", widths=widths, sentence=sentence)
    say(sentence)
    again = [replace(each, fixed=width, baseline=False) for each, width in zip(openings, widths, strict=True)]
    return Packing(Hosts(handles, again, widths), sum(widths), sentence)


def _one_by_one(why: str | None, run: Run, say: Callable[[str], None]) -> None:
    if why is not None:
        run.log_event("not_packed", why=why)
        say(f"trials are trained one by one: {why}")


def is_packed(run: Run) -> bool:
    """Whether the trials of a run that has begun are in packs."""
    return (run.path / PACK_FILE).exists()


def _end(handles: list[Any]) -> None:
    for each in handles:
        ray.kill(each)


def close(packing: Packing | None) -> None:
    """Ends the hosts."""
    if packing is not None:
        _end(packing.hosts.handles)
