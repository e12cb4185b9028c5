"""What conducting costs: sweeps of 10 to 1,000 trials that compute nothing, on a cluster of 100 machines that are not
there.

    python benchmarks/conductor.py --trials 10 100 300 1000

The driver, its Tune, Optuna (random), ASHA, events, params, states and snapshots are the real ones; so is the run
directory. The trials are not: a host answers for each with the rows of a trial of three evaluations, at once. A machine
is a custom resource, and `--hosts` of them have a process. Printed
are the seconds of the sweep a trial, and the driver's processor time a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import ray

from ftlib.cluster.fair_share import Shares
from ftlib.config import Experiment
from ftlib.files.json_files import append_row
from ftlib.run.context import Rungs, Setting
from ftlib.run.directory import Run, Trial
from ftlib.sweeps.conductor import Conductor
from ftlib.sweeps.controller import conducting
from ftlib.sweeps.pack_host import Opening
from ftlib.sweeps.pack_hosts import Hosts
from ftlib.sweeps.sweep import _quiet_tune, _tuner

MARKS = (100, 300)


class Idle:
    """A host whose trials are over as soon as they are asked for."""

    def open(self, opening: Opening) -> dict[str, Any]:
        from ftlib.sweeps.packed_trial import Slot

        self.opening, self.since = opening, time.time()
        self.residents: dict[str, Any] = {}
        self.at: dict[str, int] = {}
        Slot.host = self
        self.pack = self
        self.setting = opening.setting
        return {"width": opening.fixed, "node": ray.get_runtime_context().get_node_id(), "since": self.since}

    def ends(self) -> None:
        import threading

        threading.Event().wait()

    def start(self, key: str, trainable: Any, arguments: dict[str, Any]) -> bool:
        self.residents[key] = trainable(**arguments)
        return True

    def call(self, key: str, method: str, args: Any, keywords: Any) -> Any:
        resident = self.residents.get(key) if method != "stop" else self.residents.pop(key, None)
        return getattr(resident, method)(*args, **keywords) if resident is not None else None

    def rent(self, trial_id: str, params: Any, donor: str | None) -> None:
        self.at[trial_id] = 0

    def leave(self, trial_id: str) -> None:
        self.at.pop(trial_id, None)

    def next_report(self, trial_id: str) -> dict[str, Any]:
        self.at[trial_id] += 1
        step = self.at[trial_id]
        row = {
            "step": step,
            "tokens": [*MARKS, 900][step - 1],
            "eval_loss": 2.0 - hash(trial_id) % 97 / 100,
            "seconds": 1.0,
        }
        append_row(Trial(Path(self.setting.run) / "trials" / trial_id).metrics_path, {**row, "progress": step / 3})
        return {**row, "progress": step / 3, "finished": step == 3}


def sweep(trials: int, folder: str, nodes: int, slots: int) -> dict[str, float]:
    """One sweep; what its driver took."""
    experiment = Experiment.parse(
        {
            "name": "conductor",
            "model": {"name_or_path": "none"},
            "data": {"train": "none.jsonl"},
            "method": {"type": "sft"},
            "adapter": {"type": "lora"},
            "sweep": {
                "space": {"train.learning_rate": {"min": 1e-5, "max": 1e-2, "log": True}},
                "num_samples": trials,
                "search": {"type": "optuna", "sampler": "random"},
            },
        }
    )
    run = Run.create(
        folder, experiment.name, "", {"experiment": experiment.to_dict(), "objective": ["eval_loss", "min"]}
    )
    setting = Setting(run=str(run.path), data="", resolved=experiment.to_dict(), rungs=Rungs("tokens", MARKS))
    host = ray.remote(Idle).options(num_cpus=0, resources={"machine": 1}, max_concurrency=4 * slots)
    opening = Opening(setting, slots, slots, False, 1)
    hosts = Hosts(host.remote, opening, min(nodes, -(-trials // slots)), run.log_event)
    for _ in range(hosts.most):
        hosts.open(host.remote(), opening)
    ray.get([host.opened for host in hosts.open_hosts])
    hosts.look()
    _quiet_tune()
    tuner = _tuner(experiment, run, setting, hosts)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    with conducting(Conductor(run, setting, hosts, Shares(run.name, experiment.scale)), None):
        tuner.fit()
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
    hosts.close()
    states = [trial.state for trial in run.trials()]
    assert len(states) == trials, len(states)
    assert set(states) <= {"finished", "stopped"}, set(states)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "trials": trials,
        "hosts": hosts.opened,
        "seconds": seconds,
        "ms_a_trial": 1000 * seconds / trials,
        "cpu_ms_a_trial": 1000 * cpu / trials,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 300, 1000])
    parser.add_argument("--machines", type=int, default=100, help="how many the cluster says it has")
    parser.add_argument("--hosts", type=int, default=4, help="how many of them have a process of their own")
    parser.add_argument("--slots", type=int, default=25, help="trials of a host at once")
    asked = parser.parse_args()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(num_cpus=2, resources={"machine": asked.machines}, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        sweep(10, folder, asked.hosts, asked.slots)  # imports
        for trials in asked.trials:
            print(
                json.dumps(
                    {name: round(value, 2) for name, value in sweep(trials, folder, asked.hosts, asked.slots).items()}
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
