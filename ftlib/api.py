"""What a notebook or a script does with ftlib: the same code as the commands, without their lines.

    import ftlib

    run = ftlib.sweep("x.yaml", {"sweep.num_samples": 8})
    print(run.leaderboard())
    run.best.promote("support")
    with ftlib.serve(["support"]) as endpoint:
        ...  # any OpenAI client, with base_url=endpoint.url + "/v1"

Every call raises FtlibError (InputError, where what was given is wrong) with the sentence that the command would print.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ftlib.driver.listener import SILENT
from ftlib.errors import ConfigError, FtlibError, InputError
from ftlib.run.layout import RESOLVED

if TYPE_CHECKING:
    from ftlib.driver.outcome import Outcome
    from ftlib.registry.data_versions import DataVersion
    from ftlib.registry.version import Version
    from ftlib.run import directory
    from ftlib.run.leaderboard import Leaderboard

Overrides = Mapping[str, Any]
NOTHING: Overrides = {}


def sweep(file: str | Path, overrides: Overrides = NOTHING, *, smoke: bool = False, verbose: bool = False) -> Run:
    """Runs the sweep in an experiment's file to its end. `overrides` are values by their dotted paths; `smoke` sets
    what the file's section smoke says; `verbose` prints what `ftlib sweep` prints meanwhile.

    A Ctrl-C ends it with what trials have reached: `Run.interrupted` says so, and `resume` goes on.
    """
    return _started(file, overrides, smoke, verbose, swept=True)


def train(file: str | Path, overrides: Overrides = NOTHING, *, smoke: bool = False, verbose: bool = False) -> Run:
    """Trains an experiment's file once, as it stands: its sweep section is left aside."""
    return _started(file, {**overrides, "sweep": None}, smoke, verbose, swept=False)


def resume(run: str | Path | Run, *, trust: bool = False, verbose: bool = False) -> Run:
    """Continues a run after a crash, a Ctrl-C or a preemption. With `trust`, it also continues a run that was made
    elsewhere, and code of that run's maker may then run."""
    from ftlib.config import Experiment
    from ftlib.driver.execute import go_on

    opened = (run if isinstance(run, Run) else open_run(run)).directory
    experiment = Experiment.parse(opened.experiment, f"{opened.path}/{RESOLVED}")
    return Run.of(go_on(experiment, opened, _listener(verbose), trust))


def open_run(place: str | Path) -> Run:
    """Opens a run that exists, by its path or its URL. The name of an experiment opens its newest run."""
    from ftlib.run.remote_run import open_run

    return Run(open_run(str(place)))


def build_data(
    recipe: str | Path, overrides: Overrides = NOTHING, *, workers: int | None = None, verbose: bool = False
) -> DataVersion:
    """Does a recipe, and gives the version of the registry that its rows are: `version.file("train")` is a file of JSON
    lines. `workers` is how many processes work at once; None is one a core."""
    from ftlib.driver.data_build import build_data

    texts = [f"{path}={json.dumps(value)}" for path, value in overrides.items()]
    return build_data(str(recipe), texts, workers, _listener(verbose)).version


def pipeline(file: str | Path, *, verbose: bool = False) -> dict[str, str]:
    """Does the steps of a pipeline's file in order, each only where what it depends on has changed. Returns the state
    of each step: done, unchanged, failed or waiting.

    Raises KeyboardInterrupt at a Ctrl-C; the next call goes on there.
    """
    from ftlib.pipelines.again import opened
    from ftlib.pipelines.runner import run

    outcome = run(*opened(file), _listener(verbose))
    if outcome.interrupted is not None:
        raise KeyboardInterrupt
    return {name: outcome.state_of(name) for name in outcome.plan.needs}


def serve(
    names: Sequence[str] = (), *, host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None, **options: Any
) -> Endpoint:
    """Serves winners of the registry (all, where none is named) behind an OpenAI-compatible API, until it is stopped.

    `options` are those of `ftlib serve`, as mappings: `engine={"max_rows": 64}`.
    """
    from ftlib.cluster.session import start_ray
    from serve.front import app

    start_ray()
    return Endpoint(app.start(names, host, port, api_key=api_key, **options))


def export_winner(
    name: str,
    to: str,
    out: str | Path | None = None,
    *,
    dtype: str | None = None,
    task_rows: int = 50,
    trust: bool = False,
    verbose: bool = False,
) -> Path:
    """Writes a winner in another format, runs it there, and returns its folder, where it still is what was trained.

    `name`, `to`, `out`, `dtype` and `task_rows` are those of `ftlib export`. Raises InputError for what a format cannot
    hold, and FtlibError, with the figures, for an artifact that lost the tune.
    """
    from ftlib.driver import export
    from ftlib.driver.terminal import say

    hears = say if verbose else _warn
    return export.export_winner(name, to, Path(out) if out else None, hears, dtype, task_rows, trust).folder


@dataclass(frozen=True)
class Run:
    """A run. `directory` holds all that was written. `interrupted` says that some trials have not ended."""

    directory: directory.Run
    interrupted: bool = False

    @classmethod
    def of(cls, outcome: Outcome) -> Run:
        """The run of an outcome. It warns of what is not as it was asked for. Raises FtlibError where all trials have
        failed."""
        why = None if outcome.interrupted else outcome.why_no_winner()
        if why is not None:
            raise FtlibError(why)
        if trouble := outcome.base_trouble:
            SILENT.warn(f"the untuned base could not be evaluated, so nothing is compared with it: {trouble}")
        for sentence in outcome.not_done:
            SILENT.warn(sentence)
        for trial, reason in outcome.failed.items():
            SILENT.warn(f"trial {trial} failed: {reason}")
        if outcome.over is not None and outcome.left > 0:
            SILENT.warn(f"the sweep ended early: {outcome.over}")
        return cls(outcome.run, outcome.interrupted)

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def trials(self) -> list[Trial]:
        """All trials, in the order in which the searcher proposed them."""
        return [Trial(self, trial.id) for trial in self.directory.trials()]

    @property
    def best(self) -> Trial:
        """The first trial of the leaderboard. Raises InputError where no trial has an evaluation."""
        best = self.leaderboard().best
        if best is None:
            raise InputError(f"{self.path} has no trial with an evaluation yet.")
        return Trial(self, best.trial)

    def leaderboard(self) -> Leaderboard:
        """The trials, best first, as the run stands now; `print` shows the table."""
        from ftlib.run.leaderboard import leaderboard

        return leaderboard(self.directory)


@dataclass(frozen=True)
class Trial:
    """One trial of a run."""

    run: Run
    id: str

    @property
    def directory(self) -> directory.Trial:
        return self.run.directory.trial(self.id)

    @property
    def params(self) -> dict[str, Any]:
        """The trial's values of the sweep's space, by dotted paths."""
        return self.directory.params

    @property
    def state(self) -> str:
        return self.directory.state

    @property
    def weights(self) -> Path | None:
        """The folder of its adapter (PEFT) or model (safetensors), from its best evaluation."""
        from ftlib.run.remote_run import bring_weights

        bring_weights(self.run.directory, self.directory)
        return self.directory.weights

    def metrics(self) -> list[dict[str, Any]]:
        """The trial's log: a mapping for each row, with its `step`."""
        return self.directory.metrics()

    def promote(self, name: str, **conditions: Any) -> Version:
        """Puts it into the registry as the next version of `name`, once it has passed the gate.

        `conditions` are those of `ftlib promote`: canary, engine, max_rank, merged, gate, unless_worse_than, slack,
        if_better_than, no_worse_than, margin, task, trust. Raises InputError for what cannot be promoted, and
        FtlibError for what the gate holds back.
        """
        from ftlib.driver.promote import promote
        from ftlib.driver.task_gate import Conditions
        from ftlib.run.remote_run import bring_weights

        try:
            given = Conditions(**conditions)
        except TypeError:
            known = ", ".join(Conditions.__dataclass_fields__)
            raise InputError(f"promote takes {known}; not all of {', '.join(conditions)} are among them.") from None
        bring_weights(self.run.directory, self.directory)
        return promote(self.run.directory, self.directory, name, given, _warn)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that runs. `url` is its address; clients take `url + "/v1"`."""

    url: str

    def stop(self) -> int:
        """Refuses new requests, finishes the answers that were begun, for up to 30 s, and ends the endpoint. Returns
        how many answers were cut."""
        from serve.front import app

        try:
            return app.drain()
        finally:
            app.stop()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _started(file: str | Path, overrides: Overrides, smoke: bool, verbose: bool, swept: bool) -> Run:
    from ftlib.driver.execute import start
    from ftlib.driver.load import as_written, load

    texts = [f"{path}={json.dumps(value)}" for path, value in overrides.items()]
    experiment = load(str(file), texts, smoke)
    if swept and experiment.sweep is None:
        raise ConfigError(f"{file}: there is no sweep section: add one, or use ftlib.train.")
    return Run.of(start(experiment, as_written(str(file), texts, smoke), _listener(verbose)))


def _warn(sentence: str) -> None:
    """Passes on the sentences of a promotion or an export that are warnings."""
    if sentence.startswith("warning: "):
        SILENT.warn(sentence.removeprefix("warning: "))


def _listener(verbose: bool) -> Any:
    from ftlib.driver.quiet import quiet_libraries
    from ftlib.driver.terminal_listener import TerminalListener

    if not verbose:
        quiet_libraries()
    return TerminalListener() if verbose else SILENT
