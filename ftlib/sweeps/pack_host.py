"""A Ray actor that holds a pack: one process, one base, and as many Tune trials as its slots.

The pack trains in a thread of its own. A trial is a Tune trainable that lives in this process too (`packed_trial`,
`pack_slots`): it rents a slot, and each of its steps waits for the next evaluation. So a trial costs no process, and a
slot that the scheduler frees is taken by the next suggestion at once.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ftlib.cluster.nodes import WAITING, here
from ftlib.config import Experiment, Lora
from ftlib.errors import FtlibError, StorageError
from ftlib.files.atomic import write_text
from ftlib.models.lean_imports import uncollected
from ftlib.pack.mkl import ask_for_bits
from ftlib.run.context import Setting
from ftlib.run.directory import Run
from ftlib.run.layout import BASE, PACK_ERROR


@dataclass(frozen=True)
class Opening:
    """How a host opens its pack: with `fixed` slots, or with as many as the estimate gives, up to `most`. `baseline`:
    the untuned base is evaluated before all else. `before` is what the first host, or an earlier driver, has found.
    `company`: the run has several trials, so it matters whether they change each other's bits."""

    setting: Setting
    most: int
    fixed: int | None
    baseline: bool
    threads: int
    before: dict[str, Any] | None = None
    company: bool = True


LAST_WORDS_SECONDS = 2.0
AHEAD = 2  # evaluations that a trial may be ahead of the scheduler's word
NEXT_SECONDS = 0.1  # that an empty pack waits for a trial to follow another


class Host:
    """The actor. Importing this file is light. While the driver prepares the data, the host imports its libraries, and
    what a model like that of `resolved`, the experiment, needs of them."""

    def __init__(self, resolved: dict[str, Any] | None = None) -> None:
        ask_for_bits()
        os.environ.setdefault(*WAITING)  # on a cluster, Ray was started by others
        from ftlib.sweeps.packed_trial import Slot

        self.since = time.time()
        self.residents: dict[str, Any] = {}
        self.reports: dict[str, queue.Queue[dict[str, Any]]] = {}
        self.requests: queue.Queue[Callable[[], None]] = queue.Queue()
        self.broken: str | None = None
        self.thread: threading.Thread | None = None
        self.pack: Any = None
        self.opening: Exception | None = None
        self.opened = threading.Event()
        self.evacuated: str | None = None  # why no trial is taken any more
        self.lock = threading.Lock()
        Slot.host = self
        # Not in a thread: what the host is asked meanwhile waits, and Ray imports torch too where it reads arguments.
        _import(resolved)

    # --- the pack ---------------------------------------------------------------------------------------------

    def open(self, opening: Opening) -> dict[str, Any]:
        """Loads the base, estimates the width, and begins; says what was found. Asked again, it only answers.

        Raises CannotPack where this base holds no pack.
        """
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, args=(opening,), name="pack", daemon=True)
                self.thread.start()
        self.opened.wait()
        if self.opening is not None:
            raise self.opening
        said: dict[str, Any] = self.found
        return said

    def _run(self, opening: Opening) -> None:
        try:
            self._open(opening)
        except Exception as error:
            self.opening = error if isinstance(error, FtlibError) else FtlibError(f"{type(error).__name__}: {error}")
            self.opened.set()
            return
        self.opened.set()
        try:
            while True:
                self._answer_requests()
                self.pack.tick(self._is_ahead)
        except StorageError as error:  # no trial's fault: they go on from their checkpoints, in another host
            self._end_with({"preempted": str(error)})
        except Exception as error:  # a defect: every trial here hears of it, none waits for ever
            self.broken = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            with contextlib.suppress(StorageError):
                write_text(Path(opening.setting.run) / PACK_ERROR.format(pid=os.getpid()), traceback.format_exc())
            self._end_with({"broken": self.broken})

    def _end_with(self, report: dict[str, Any]) -> None:
        """Tells every trial, and ends this process a moment later: another host takes its place."""
        for waiting in list(self.reports.values()):
            waiting.put(report)
        time.sleep(LAST_WORDS_SECONDS)
        os._exit(1)

    def _open(self, opening: Opening) -> None:
        asked = time.perf_counter()
        import torch

        from ftlib.cluster import vault
        from ftlib.config.packs import largest_rank
        from ftlib.data import load_prepared
        from ftlib.methods.pack_losses import objective
        from ftlib.pack.engine import Pack
        from ftlib.pack.frozen_base import FrozenBase
        from ftlib.pack.isolation import probe
        from ftlib.pack.pace import Pace
        from ftlib.pack.width import BUSY, Width, depends_on, estimated, places_of
        from ftlib.run.trial_transfer import download, upload

        vault.receive()
        started = time.perf_counter()
        torch.set_num_threads(opening.threads)
        setting, fixed = opening.setting, opening.fixed
        experiment = setting.experiment()
        rank = largest_rank(experiment)
        download(setting)
        data = load_prepared(Path(setting.data))
        device = "cuda" if experiment.scale.use_gpu else "cpu"
        of = depends_on(setting, data.hash, rank, device, opening.threads)
        base = FrozenBase(experiment, data, 1, rank, device)
        places = places_of(setting, data)
        if fixed:
            width = Width(fixed, fixed, fixed, places, "asked")
        else:
            width = Width.known(opening.before, of, opening.most) or estimated(base, places, opening.most)
        base.bank.resize(width.slots)
        loaded = time.perf_counter()
        isolation = probe(base).to_dict() if opening.company else None
        probed = time.perf_counter()
        settled = partial(self._settled, setting)
        pace = Pace(width.width, width.widest, BUSY[device], settled) if width.how == "estimated" else None
        alone = 1 if opening.company or device != "cpu" else opening.threads
        self.pack = Pack(base, setting, width.width, pace, threads=alone)
        if opening.baseline:
            self.pack.evaluate_base(lambda: objective(experiment, data, base))
            upload(setting, BASE)
        ready = time.perf_counter()
        self.found = {
            **width.to_dict(),
            "sentence": width.sentence,
            "isolation": isolation,
            "of": of,
            "threads": opening.threads,
            "node": here(),
            "since": self.since,
            "seconds": {
                "import": started - asked,
                "load": loaded - started,
                "probe": probed - loaded,
                "baseline": ready - probed,
            },
        }

    def _settled(self, setting: Setting, width: int, rates: dict[int, float]) -> None:
        """Notes which width has been the fastest, for a driver that goes on with the run."""
        others = [f"width {wide} makes {rate / rates[width]:.0%} of them" for wide, rate in sorted(rates.items())
                  if wide != width]  # fmt: skip
        sentence = f"pack width {width}: {rates[width]:,.0f} tokens a second; {', '.join(others)}"
        Run(Path(setting.run)).log_event("pack_paced", width=width, rates=rates, of=self.found["of"], sentence=sentence)

    def evacuate(self, why: str) -> None:
        """Saves every trial where it stands and sends it away, to go on elsewhere: this machine is about to go."""

        def all_of_them() -> None:
            self.evacuated = why
            self._send_away(why, *self.pack.members)

        self._asked(all_of_them)

    def release(self, trial_id: str, why: str) -> None:
        """Saves one trial where it stands and sends it away."""
        self._asked(lambda: self._send_away(why, trial_id))

    def _send_away(self, why: str, *trials: str) -> None:
        for trial_id in trials:
            if trial_id in self.pack.members:
                self.pack.depart(trial_id)
                if trial_id in self.reports:
                    self.reports[trial_id].put({"preempted": why})

    def ends(self) -> None:
        """Never returns: who waits for it hears when this process is gone."""
        threading.Event().wait()

    def _answer_requests(self) -> None:
        """Joins and leaves, between two batches. Waits for one where nobody trains."""
        idle = all(self._is_ahead(name) for name in self.pack.members)
        asked: list[Callable[[], None]] = []
        with contextlib.suppress(queue.Empty):
            asked.append(self.requests.get(block=idle, timeout=0.02 if self.pack.members else None))
            while True:
                asked.append(self._one_more(len(asked)))
        for request in asked:
            request()  # one that must wait for a slot asks again

    def _one_more(self, asked: int) -> Callable[[], None]:
        """Trials of an empty pack begin in one tick: they see the same batches, and are evaluated in one pass. Raises
        queue.Empty."""
        together = not self.pack.members and asked < self.pack.base.bank.slots
        return self.requests.get(block=together, timeout=NEXT_SECONDS)

    def _is_ahead(self, trial_id: str) -> bool:
        reports = self.reports.get(trial_id)
        return reports is not None and reports.qsize() >= AHEAD

    def _asked(self, action: Callable[[], None]) -> None:
        """Runs `action` in the pack's thread; raises here what it raises there."""
        done: queue.Queue[Exception | None] = queue.Queue()

        def run() -> None:
            try:
                action()
                done.put(None)
            except _NoSlotYet:
                self.requests.put(run)
            except Exception as error:
                done.put(error)

        self.requests.put(run)
        while True:
            try:
                error = done.get(timeout=1.0)
                break
            except queue.Empty:
                if self.broken:
                    raise FtlibError(f"the pack ended: {self.broken}") from None
        if error is not None:
            raise error

    # --- what a trial asks ------------------------------------------------------------------------------------

    def rent(self, trial_id: str, params: Mapping[str, Any], donor: str | None) -> None:
        """A slot for a trial, which begins to train. Raises TrialError for a point that cannot be trained."""
        reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self.reports[trial_id] = reports

        def join() -> None:
            if self.evacuated:
                reports.put({"preempted": self.evacuated})
                return
            if not self.pack.free:  # its last tenant is leaving
                raise _NoSlotYet
            self.pack.join(trial_id, params, reports.put, lambda reason: reports.put({"failed": reason}), donor=donor)

        self._asked(join)

    def next_report(self, trial_id: str) -> dict[str, Any]:
        """The trial's next evaluation; {"failed": why}, {"broken": why}, {"preempted": why}, or {"left": True} where
        Tune has stopped it meanwhile."""
        reports = self.reports.get(trial_id)
        return reports.get() if reports is not None else {"left": True}

    def leave(self, trial_id: str) -> None:
        """Frees the trial's slot."""
        reports = self.reports.pop(trial_id, None)
        if reports is not None:
            reports.put({"left": True})
            if not self.broken:
                self._asked(lambda: self.pack.leave(trial_id))

    # --- Tune's trials, as the seam sends them -------------------------------------------------------------------

    def start(self, key: str, trainable: Any, arguments: dict[str, Any]) -> bool:
        """Makes a resident: a trainable of Tune's that lives here instead of in a process of its own."""
        self.residents[key] = trainable(**arguments)
        return True

    def call(self, key: str, method: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """A resident's method. `stop` is its last: what was asked of it meanwhile, by threads that came later, is
        nothing."""
        resident = self.residents.get(key) if method != "stop" else self.residents.pop(key, None)
        return getattr(resident, method)(*args, **keywords) if resident is not None else None


class _NoSlotYet(Exception):
    """A trial came before a slot was free."""


def _import(resolved: dict[str, Any] | None) -> None:
    """Imports ahead of time what a pack needs. transformers imports the classes of a model when it meets one."""
    with uncollected():
        import ftlib.pack.engine
        import ftlib.pack.pace
        import ftlib.pack.width  # noqa: F401

        if resolved is not None:
            with contextlib.suppress(Exception):  # whatever is wrong, the driver says it
                _meet(Experiment.parse(resolved))


def _meet(experiment: Experiment) -> None:
    from ftlib.models.adapters.lora_layers import LoraLayers
    from ftlib.models.base import fingerprint, load_tokenizer

    folder = Path(experiment.model.name_or_path)
    if (folder / "config.json").is_file():  # of others, the driver may not be done yet
        threading.Thread(target=fingerprint, args=(folder,), daemon=True).start()  # a file is hashed once a process
        load_tokenizer(experiment.model, experiment.method.head)
        assert isinstance(experiment.adapter, Lora)
        LoraLayers(experiment.model, experiment.method.head).names(experiment.adapter)
