"""From an experiment's file to a closed run: what `sweep`, `train`, `resume` and a cluster's driver have in common."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from ftlib.cli.closing import has_ended, planned, tell_the_end
from ftlib.cli.output import console

if TYPE_CHECKING:
    from rich.console import Console

    from ftlib.config import Experiment
    from ftlib.data import Prepared
    from ftlib.run.commands import Command
    from ftlib.run.directory import Run


def load(file: str, overrides: tuple[str, ...], smoke: bool = False, whole: bool = False) -> Experiment:
    """The experiment in a file, its paths absolute and what it names of the registry found; `whole`: without adapters
    whose bases stay here. Raises InputError."""
    from ftlib.config import Experiment

    experiment = _without_password(Experiment.load(file, overrides, smoke))
    check_files(experiment)
    if names_versions(experiment):
        from ftlib.registry import bases

        experiment = bases.resolved(experiment, whole)
    return experiment.anchored()


def _without_password(experiment: Experiment) -> Experiment:
    """The experiment as it is written down: the password of its study is kept beside FTLIB_HOME alone."""
    from ftlib.run import passwords

    search = experiment.sweep.search if experiment.sweep else None
    url = getattr(search, "storage", None)
    if experiment.sweep is None or search is None or url is None:
        return experiment
    bare = passwords.keep(url)
    sys.argv[:] = map(passwords.hidden, sys.argv)  # W&B writes down how a program was called
    sweep = experiment.sweep.model_copy(update={"search": search.model_copy(update={"storage": bare})})
    return experiment.model_copy(update={"sweep": sweep})


def names_versions(experiment: Experiment) -> bool:
    """Whether the registry has to be asked for something that the experiment names."""
    return "registry:" in str(experiment.to_dict()) or getattr(experiment.adapter, "start", None) is not None


def check_files(experiment: Experiment) -> None:
    """Raises InputError for a file of data, or a folder of a model, that is not there, before a library is imported or Ray
    is started."""
    from ftlib.data.read import find_source, is_local
    from ftlib.errors import ConfigError, nearest

    models = {"model.name_or_path": experiment.model.name_or_path, "model.tokenizer": experiment.model.tokenizer}
    for key, value in {**models, "method.teacher": getattr(experiment.method, "teacher", None)}.items():
        path = Path(value or ".").expanduser()
        if path.exists() or "://" in str(value) or not str(value).startswith(("/", "./", "../", "~")):
            continue  # there, or a name that the Hub or the registry may know
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"{key}: there is no '{value}' here.{nearest(path.name, beside)}")
    data = experiment.data
    named = [(called, section.train, section) for called, _, section in data.sources]
    named += [("eval", data.eval, data)] if data.eval else []
    named += [("replay.train", data.replay.train, data)] if data.replay else []
    for called, value, section in named:
        if is_local(str(value)):
            find_source("train", section.model_copy(update={"train": value}), called)


def prepared(experiment: Experiment, out: Console, told: bool = True, begun: str | None = None) -> Prepared:
    """The data as it is trained on, with a summary where it is `told`; `begun`: the hash of the rows that a run began
    with. What is wrong with the method, the base or the adapter is said before it. Raises DataError where the data has
    changed since, and those rows are gone."""
    from ftlib.data import prepare, prepare_again
    from ftlib.methods import check as check_method
    from ftlib.models.adapters.build import empty_model
    from ftlib.models.base import load_tokenizer, parent_of
    from ftlib.registry.registry import root_of

    parent = parent_of(Path(experiment.model.name_or_path))
    if parent is not None:
        how = f" merged into {root_of(parent['base'])}" if "adapter" in parent else ""
        out.print(f"base {parent['version']}{how}", soft_wrap=True, highlight=False)
    with out.status("preparing data"):
        check_method(experiment)
        # A wrong config key or target module is said now.
        empty_model(experiment.model, experiment.adapter, experiment.method.head)
        tokenizer = load_tokenizer(experiment.model, experiment.method.head)
        rows, changed = experiment.method.rows, None
        if begun is None:
            data = prepare(experiment.data, rows, tokenizer)
        else:
            alone = _reads_data_itself(experiment)
            data, changed = prepare_again(experiment.data, rows, tokenizer, begun, only_unchanged=alone)
    if changed:
        out.print(f"warning: {changed}", style="yellow", soft_wrap=True, highlight=False)
    if told:
        out.print(data.report.summary(), highlight=False, soft_wrap=True)
    return data


def _reads_data_itself(experiment: Experiment) -> bool:
    """Whether trials read the files again: a teacher's prompts, or points that change how rows are made."""
    space = experiment.sweep.space if experiment.sweep else {}
    return experiment.method.type == "distill" or any(key.startswith(("data.", "model.")) for key in space)


def as_written(file: str, overrides: tuple[str, ...], smoke: bool) -> str:
    """The text of an experiment's file, and what was set beside it; without the password that `load` has found in it."""
    from ftlib.run import passwords

    text = Path(file).read_text(encoding="utf-8")
    if smoke:
        text += "# --smoke\n"
    return passwords.hidden(text + "".join(f"# override: {override}\n" for override in overrides))


def start(
    experiment: Experiment,
    text: str,
    run_name: str | None = None,
    parcel: dict[str, Any] | None = None,
    promoted_as: str | None = None,
) -> None:
    """A new run: everything that can be wrong is found before its directory exists.

    `run_name` is the directory's, where it is fixed; `parcel` says where the inputs of a job came from; the winner becomes
    the next version of `promoted_as`.
    """
    from ftlib.run import signature
    from ftlib.run.directory import Run
    from ftlib.run.mirror import local_storage
    from ftlib.run.tracking import wandb_mode
    from ftlib.sweeps.sweep import check_resources, dismiss, first_host, start_ray

    if experiment.track.wandb is not None:
        wandb_mode(experiment.track.wandb)
    _closed_to_others()
    Thread(target=_import_libraries, daemon=True).start()  # Ray's processes start meanwhile
    start_ray()
    check_resources(experiment)
    hosts = first_host(experiment)  # it imports its libraries while the data is prepared
    try:
        data = prepared(experiment, console())
        resolved = _resolved(experiment, data) | ({"parcel": parcel} if parcel else {})
        run = Run.create(local_storage(experiment.storage), experiment.name, text, resolved, run_name)
        signature.sign(run)
    except BaseException:
        dismiss(hosts)
        raise
    _conduct(experiment, run, data=data, hosts=hosts, promoted_as=promoted_as)


def go_on(experiment: Experiment, run: Run, trust: bool = False, command: Command | None = None) -> None:
    """Resumes a run, with a command for it where nothing is wrong; of one that has ended, only what it came to is told.

    Raises InputError for one that was made elsewhere and is not trusted, and where its data has changed.
    """
    from ftlib.run import signature

    if not trust:
        signature.check(run)
    if command is None and has_ended(experiment, run):
        tell_the_end(experiment, run)
        return
    run.check()  # a damaged file is said before Ray starts
    _closed_to_others()
    signature.sign(run, trusted=signature.why_foreign(run) is not None or signature.was_trusted(run))
    base = run.resolved.get("base") or {}
    if base.get("parent") and not Path(base["name_or_path"]).is_dir():
        from ftlib.registry import bases

        found = bases.found(base, run.name)["name_or_path"]
        experiment = experiment.with_paths(lambda key, value: found if key == "model.name_or_path" else value)
    _conduct(experiment, run, resumed=True, command=command)


def _closed_to_others() -> None:
    """What this process and Ray's make from here on: a run that a group can write to is not believed later."""
    import os

    os.umask(os.umask(0o022) | 0o022)


def _import_libraries() -> None:
    import ftlib.data  # noqa: F401


def _resolved(experiment: Experiment, data: Prepared) -> dict[str, Any]:
    from dataclasses import asdict

    from ftlib.run.context import versions

    return {
        "experiment": experiment.to_dict(),
        "objective": experiment.objective,
        "base": _base(experiment),
        "data": {"hash": data.hash, **asdict(data.report)},
        "seed": experiment.train.seed,
        "versions": versions(),
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    """Of the repository that the command is given in; None where there is none, or no git."""
    import shutil
    import subprocess

    if shutil.which("git") is None:
        return None
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _base(experiment: Experiment) -> dict[str, Any]:
    """The base by name, and which version of the registry it was made of, so that it can be made again."""
    from ftlib.models.base import parent_of

    name = experiment.model.name_or_path
    return {"name_or_path": name, "parent": parent_of(Path(name))}


def _conduct(
    experiment: Experiment,
    run: Run,
    data: Prepared | None = None,
    resumed: bool = False,
    hosts: list[Any] | None = None,
    command: Command | None = None,
    promoted_as: str | None = None,
) -> None:
    """Runs or resumes, with the live view and the trackers beside it, and closes with the leaderboard."""
    from ftlib.run.commands import send
    from ftlib.run.mirror import mirrored, url_of
    from ftlib.run.tracking import following
    from ftlib.run.watch import watching
    from ftlib.sweeps.sweep import fit

    out = console()
    data = data or prepared(experiment, out, begun=run.resolved.get("data", {}).get("hash"))
    if command is not None:  # nothing is left in a run that cannot go on
        send(run, command)
    total = planned(experiment)
    out.print(f"run {url_of(run) or run.path}", soft_wrap=True, highlight=False)

    def warn(sentence: str) -> None:
        out.print(f"warning: {sentence}", style="yellow", soft_wrap=True, highlight=False)

    def say(sentence: str) -> None:
        out.print(sentence, soft_wrap=True, highlight=False)

    interrupted = False
    try:
        with (
            mirrored(run, data.path, warn) as mirror,
            following(run, experiment.track, warn),
            watching(run, total, out, at_most=experiment.train.early_stopping_patience is not None),
        ):
            try:
                fit(experiment, run, data, resume=resumed, first=hosts, say=say)
            except KeyboardInterrupt:
                interrupted = True
            mirror()
    except KeyboardInterrupt:  # once more, while what was interrupted is brought to its end
        interrupted = True
    tell_the_end(experiment, run, interrupted, promoted_as)
