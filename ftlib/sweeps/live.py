"""What the driver knows of the trials that train: where each is, since when, and who has asked it to go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ftlib.run.directory import Run
from ftlib.sweeps.pack_hosts import OpenHost


@dataclass
class Live:
    """What the driver knows of trials. Each driver makes a new one. All maps have trials' ids as keys."""

    run: Run
    homes: dict[str, OpenHost] = field(default_factory=dict)  # of trials in packs
    started: dict[str, float] = field(default_factory=dict)  # by this driver, at which time
    interrupted: dict[str, float] = field(default_factory=dict)  # when, until it goes on
    ends: dict[str, str] = field(
        default_factory=dict
    )  # trials that are stopped by other than the scheduler, and by whom
    ended: int = 0  # trials that have ended under this driver
    moving: set[str] = field(default_factory=set)  # trials that are asked to leave, until they begin again
    hung: dict[str, str] = field(default_factory=dict)  # trials whose process was ended, since it was silent

    def ask_to_leave(self, trial: object, why: str) -> None:
        """Asks a running trial to save where it stands and to leave its slot or process."""
        home = self.homes.get(str(trial))
        if home is not None:
            home.handle.release.remote(str(trial), why)
        else:
            self.run.trial(str(trial)).ask_to_leave(why)

    def ask_all_to_leave(self, trials: Iterable[object], why: str) -> None:
        """Asks running trials to save where they stand and to leave. A host hears it once for all of its trials: asked
        one by one, some would train a tick more, and a tick of a real model takes half a minute."""
        names = [str(trial) for trial in trials]
        for home in {self.homes[name] for name in names if name in self.homes}:
            home.handle.evacuate.remote(why)
        for name in names:
            if name not in self.homes:
                self.ask_to_leave(name, why)
