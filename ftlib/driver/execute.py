"""A new run, or one that goes on: from an experiment to what came of it. Nothing is printed here, and nothing exits."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from ftlib.driver.listener import SILENT, Listener
from ftlib.driver.outcome import Outcome, has_ended
from ftlib.driver.prepare import prepared
from ftlib.models.lean_imports import uncollected

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.data import Prepared
    from ftlib.run.commands import Command
    from ftlib.run.directory import Run


def start(
    experiment: Experiment,
    text: str,
    listener: Listener = SILENT,
    run_name: str | None = None,
    parcel: dict[str, Any] | None = None,
) -> Outcome:
    """A new run, trained to its end: everything that can be wrong is found before its directory exists.

    `text` is the experiment as its author wrote it; `run_name` the directory's, where it is fixed; `parcel` says where
    the inputs of a job came from. Raises FtlibError for what cannot be trained. A Ctrl-C is no error: the outcome says
    so.
    """
    from ftlib.cluster.session import check_resources
    from ftlib.registry.data_named import lineage
    from ftlib.run import signature
    from ftlib.run.directory import Run
    from ftlib.run.places import local_storage
    from ftlib.run.tracking import check

    check(experiment.track)
    _closed_to_others()
    _begin()
    check_resources(experiment)
    from ftlib.sweeps.pack_plan import dismiss, first_hosts  # light: hosts need not wait for what is imported here

    hosts = first_hosts(experiment)  # they import their libraries while the data is prepared
    try:
        data = prepared(experiment, listener)
        if experiment.sweep is not None and experiment.sweep.lr_find:
            from ftlib.driver.lr_find import narrowed

            with listener.busy("trying learning rates"):
                experiment = narrowed(experiment, data, listener.say)
        versions = parcel["data_versions"] if parcel else lineage(experiment)
        resolved = _resolved(experiment, data, versions) | ({"parcel": parcel} if parcel else {})
        run = Run.create(local_storage(experiment.storage), experiment.name, text, resolved, run_name)
        signature.sign(run)
    except BaseException:
        dismiss(hosts)
        raise
    return _fit(experiment, run, data, listener, hosts=hosts)


def go_on(
    experiment: Experiment,
    run: Run,
    listener: Listener = SILENT,
    trust: bool = False,
    command: Command | None = None,
) -> Outcome:
    """Resumes a run, with a command for it where nothing is wrong; of one that has ended, only what it came to is read.

    Raises InputError for one that was made elsewhere and is not trusted, and where its data has changed.
    """
    from ftlib.driver.evaluate import evaluate_winner, is_due
    from ftlib.run import signature
    from ftlib.run.commands import send

    if not trust:
        signature.check(run)
    if command is None and has_ended(experiment, run):
        if is_due(experiment, run):
            evaluate_winner(experiment, run, listener, _template(run))
        return Outcome.of(experiment, run)
    run.check()  # a damaged file is said before Ray starts
    _closed_to_others()
    signature.sign(run, trusted=signature.why_foreign(run) is not None or signature.was_trusted(run))
    base = run.resolved.get("base") or {}
    if base.get("parent") and not Path(base["name_or_path"]).is_dir():
        from ftlib.registry import bases

        found = bases.found(base, run.name)["name_or_path"]
        experiment = experiment.with_paths(lambda key, value: found if key == "model.name_or_path" else value)
    _begin()
    data = prepared(experiment, listener, begun=run.resolved.get("data", {}).get("hash"))
    if command is not None:  # nothing is left in a run that cannot go on
        send(run, command)
    return _fit(experiment, run, data, listener, resumed=True)


def _replicated(experiment: Experiment, run: Run, data: Prepared, listener: Listener) -> bool:
    """Trains the winner again with the other seeds that `evaluation.seeds` asks for. False where it is interrupted."""
    from ftlib.driver.seeds import ask_for_replicas
    from ftlib.run.leaderboard import write_leaderboard
    from ftlib.sweeps.sweep import fit

    if not ask_for_replicas(experiment, run):
        return True
    try:
        fit(experiment, run, data, resume=True, say=listener.say)
    except KeyboardInterrupt:
        return False
    write_leaderboard(run)
    return True


def _template(run: Run) -> str | None:
    """The chat template that the trials of a run were trained with."""
    for trial in run.trials():
        if trial.manifest.get("chat_template"):
            return str(trial.manifest["chat_template"])
    return None


def _closed_to_others() -> None:
    """Sets the umask of this process, which Ray's processes inherit: a run that a group can write to is not believed
    later."""
    os.umask(os.umask(0o022) | 0o022)


def _begin() -> None:
    """Starts Ray, whose processes take seconds to come, and imports meanwhile what takes seconds too."""
    from ftlib.cluster.session import start_ray

    Thread(target=_import_libraries, daemon=True).start()
    start_ray()


def _import_libraries() -> None:
    with uncollected():
        for name in ("ftlib.sweeps.sweep", "ftlib.data", "ftlib.models.adapters.build"):
            import_module(name)


def _resolved(experiment: Experiment, data: Prepared, data_versions: dict[str, dict[str, str]]) -> dict[str, Any]:
    from dataclasses import asdict

    from ftlib.run.context import versions
    from ftlib.sweeps.eval_part import eval_part

    return {
        "experiment": experiment.to_dict(),
        "objective": experiment.objective,
        **({"objectives": several} if len(several := experiment.objectives) > 1 else {}),
        "base": _base(experiment),
        "data": {"hash": data.hash, **asdict(data.report), "versions": data_versions},
        "eval_part": asdict(eval_part(experiment, data)),
        "seed": experiment.train.seed,
        "versions": versions(),
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    """The git commit of the current folder's repository; None where there is no repository, or no git."""
    import shutil
    import subprocess

    if shutil.which("git") is None:
        return None
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _base(experiment: Experiment) -> dict[str, Any]:
    """The name of the base, and the version of the registry that it was made from. With both, it can be made again."""
    from ftlib.models.base import parent_of

    name = experiment.model.name_or_path
    return {"name_or_path": name, "parent": parent_of(Path(name))}


def _fit(
    experiment: Experiment,
    run: Run,
    data: Prepared,
    listener: Listener,
    resumed: bool = False,
    hosts: list[Any] | None = None,
) -> Outcome:
    """Starts or resumes the training, with the listener, the mirror and the trackers beside it."""
    from ftlib.driver.evaluate import evaluate_winner
    from ftlib.run.leaderboard import write_leaderboard
    from ftlib.run.mirror import mirrored
    from ftlib.run.places import url_of
    from ftlib.run.tracking import following
    from ftlib.sweeps.sweep import fit

    listener.say(f"run {url_of(run) or run.path}")
    interrupted = False
    try:
        with (
            mirrored(run, data.path, listener.warn) as mirror,
            following(run, experiment.track, listener.warn),
            listener.follow(run, experiment.number_of_trials, experiment.train.early_stopping_patience is not None),
        ):
            try:
                fit(experiment, run, data, resume=resumed, first=hosts, say=listener.say)
            except KeyboardInterrupt:
                interrupted = True
            write_leaderboard(run)  # before the last look of the mirror
            if not interrupted and not run.unfinished():
                interrupted = not _replicated(experiment, run, data, listener)
            if not interrupted and not run.unfinished():
                evaluate_winner(experiment, run, listener, data.chat_template)
            _report(run, listener)
            mirror()
    except KeyboardInterrupt:  # once more, while what was interrupted is brought to its end
        interrupted = True
    return Outcome.of(experiment, run, interrupted)


def _report(run: Run, listener: Listener) -> None:
    """Writes the page of a run. A page that fails ends nothing: what was trained is there without it."""
    try:
        from ftlib.report.page import write_report

        write_report(run)
    except Exception as error:
        listener.warn(f"the report is not written: {type(error).__name__}: {error}")
