"""How a sweep comes to its packs: whether its trials can share a base, how many hosts, how wide each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray

from ftlib.config import Experiment
from ftlib.config.packs import why_not_packed
from ftlib.errors import ConfigError, FtlibError
from ftlib.pack.host import Host, Opening
from ftlib.pack.seam import Hosts
from ftlib.runs import Run, read_json, write_json
from ftlib.setting import Setting

PACK_FILE = "pack.json"  # in the run directory: that its trials are in packs, and what was measured
MOST = 64  # slots of a host, whatever is measured


@dataclass
class Packing:
    """The hosts of a run, and how many trials they hold at once."""

    hosts: Hosts
    slots: int
    sentence: str


def hosts_for(experiment: Experiment) -> list[Any]:
    """Host actors for the sweep, importing already; none where its trials are not packed.

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
    scale = experiment.scale
    resources = {name: amount for name, amount in scale.resources_per_worker.items() if name not in ("CPU", "GPU")}
    actor = ray.remote(Host).options(
        num_cpus=scale.resources_per_worker.get("CPU", 0),
        num_gpus=scale.resources_per_worker.get("GPU", 0),
        resources=resources,
        max_concurrency=2 * MOST + 8,  # each trial waits in a thread of its own
        max_restarts=-1,
    )
    return [actor.remote() for _ in range(_number(experiment))]


def _number(experiment: Experiment) -> int:
    """As many hosts as the cluster holds now; no more than trials, or than packs of the width that was asked for."""
    sweep = experiment.sweep
    assert sweep is not None
    have = ray.cluster_resources()
    wanted = {name: amount for name, amount in experiment.scale.resources_per_worker.items() if amount}
    fits = min((int(have.get(name, 0) // amount) for name, amount in wanted.items()), default=1)
    trials = min(sweep.number_of_trials, sweep.max_concurrent_trials or sweep.number_of_trials)
    packs = trials if sweep.pack == "auto" else math.ceil(trials / int(sweep.pack))
    return max(1, min(fits, packs))


def open_packs(
    handles: list[Any], experiment: Experiment, run: Run, setting: Setting, say: Callable[[str], None]
) -> Packing | None:
    """Loads the base in every host and measures; None where this base cannot be packed and nobody insisted.

    Raises FtlibError where a pack was asked for, or where the run has begun in packs, and cannot go on so.
    """
    sweep = experiment.sweep
    if not handles or sweep is None:
        return None
    begun = read_json(run.path / PACK_FILE)
    fixed = int(sweep.pack) if sweep.pack != "auto" else None
    trials = min(sweep.number_of_trials, sweep.max_concurrent_trials or sweep.number_of_trials)
    most = min(MOST, math.ceil(trials / len(handles)))
    threads = max(1, int(experiment.scale.resources_per_worker.get("CPU", 1)))
    width = min(fixed, most) if fixed else None
    openings = [
        Opening(setting, most, width, setting.baseline and not number, threads) for number in range(len(handles))
    ]
    try:
        measured = ray.get([each.open.remote(opening) for each, opening in zip(handles, openings, strict=True)])
    except FtlibError as error:
        _end(handles)
        sentence = str(getattr(error, "cause", error))
        if fixed or begun:
            raise FtlibError(f"sweep.pack: {sentence}: use sweep.pack: off.") from error
        run.log_event("not_packed", why=sentence)
        say(f"trials are trained one by one: {sentence}")
        return None
    widths = [each["width"] for each in measured]
    write_json(run.path / PACK_FILE, {"hosts": len(handles), "measured": measured})
    sentence = measured[0]["sentence"] if not fixed else f"pack width {widths[0]}"
    sentence += f", {len(handles)} of them" if len(handles) > 1 else ""
    run.log_event("packed", widths=widths, sentence=sentence)
    say(sentence)
    again = [replace(each, fixed=width, baseline=False) for each, width in zip(openings, widths, strict=True)]
    return Packing(Hosts(handles, again, widths), sum(widths), sentence)


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
