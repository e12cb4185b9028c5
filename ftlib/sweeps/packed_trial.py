"""A trial of a pack, as Ray Tune sees it: a class trainable that rents a slot and reports what the pack finds.

It computes nothing. Tune's schedulers, searchers, callbacks and `Tuner.restore` meet it as they meet any trial.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.tune

from ftlib.cluster.nodes import note_place
from ftlib.errors import FtlibError
from ftlib.files.atomic import write_json, write_text
from ftlib.files.json_files import read_json
from ftlib.run.context import Setting
from ftlib.run.directory import ENDED, Run
from ftlib.run.layout import ERROR
from ftlib.sweeps.search import FAILED
from ftlib.sweeps.solo_trial import DONOR_FILE, preempted_error, reported_again

if TYPE_CHECKING:
    from ftlib.sweeps.pack_host import Host


class Slot(ray.tune.Trainable):
    """`config` is a sampled point: dotted paths to values, ratios unresolved. `setting` is the pack's."""

    host: Host  # of this process

    def setup(self, config: dict[str, Any]) -> None:
        self.point, self.donor, self.rented = config, None, False

    def step(self) -> dict[str, Any]:
        """Waits for the next evaluation and returns it. A trial that cannot be trained reports why and ends. A broken
        pack raises an exception."""
        setting: Setting = self.host.pack.setting
        trial = Run(Path(setting.run)).trial(self.trial_name)
        if not self.rented and trial.state in ENDED:
            return {**reported_again(trial), "done": True}
        try:
            if not self.rented:
                note_place(trial.path)
                self.host.rent(trial.id, setting.experiment().resolve_ratios(self.point), self.donor)
                self.rented = True
            report = self.host.next_report(trial.id)
        except Exception as error:
            known = isinstance(error, FtlibError)
            report = {"failed": str(error) if known else f"{type(error).__name__}: {error}"}
            report["traceback"] = traceback.format_exc()
        if "broken" in report:
            raise RuntimeError(report["broken"])
        if "preempted" in report:
            raise preempted_error(report["preempted"])
        if "failed" in report:
            write_text(trial.path / ERROR, report.get("traceback", report["failed"]))
            return {FAILED: report["failed"], "finished": False, "done": True}
        return {**report, "done": bool(report.get("finished") or report.get("left"))}

    def save_checkpoint(self, checkpoint_dir: str) -> str:
        """Writes one line: the id of the trial whose checkpoint in the run directory is meant (population-based
        training)."""
        write_json(Path(checkpoint_dir) / DONOR_FILE, {"trial": self.trial_name})
        return checkpoint_dir

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Continues from the trial that a checkpoint names."""
        self.donor = read_json(Path(checkpoint) / DONOR_FILE)["trial"]

    def cleanup(self) -> None:
        """Frees the slot."""
        self.host.leave(self.trial_name)
