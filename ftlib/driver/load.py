"""The experiment in a file, with all that it names found: files, folders, versions of the registry."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlib.config import Experiment


def load(file: str, overrides: Iterable[str], smoke: bool = False, whole: bool = False) -> Experiment:
    """The experiment in a file, its paths absolute and what it names of the registry found; `whole`: without adapters
    whose bases stay here. Raises InputError."""
    from ftlib.config import Experiment
    from ftlib.config.space import Auto

    experiment = _without_password(Experiment.load(file, overrides, smoke))
    if "data:" in str(experiment.to_dict()):
        from ftlib.registry import data_named

        experiment = data_named.resolved(experiment)
    check_files(experiment)
    if names_versions(experiment):
        from ftlib.registry import bases

        experiment = bases.resolved(experiment, whole)
    if not experiment.method.trains:
        from ftlib.driver.merge import looked_up

        experiment = looked_up(experiment)
    _check_search(experiment)
    if experiment.sweep is not None and any(isinstance(told, Auto) for told in experiment.sweep.space.values()):
        from ftlib.driver.terminal import say
        from ftlib.sweeps.published import with_ranges

        experiment, sentence = with_ranges(experiment)
        say(sentence or "")
    return experiment.anchored()


def _check_search(experiment: Experiment) -> None:
    """Raises ConfigError for what only Optuna can tell; without a name of Optuna's it need not be imported."""
    search, scheduler = (experiment.sweep.search, experiment.sweep.scheduler) if experiment.sweep else (None, None)
    named = getattr(search, "sampler", "tpe") != "tpe" or bool(getattr(search, "options", {}))
    if named or getattr(search, "n_startup_trials", None) is not None or getattr(scheduler, "type", None) == "optuna":
        from ftlib.sweeps import samplers

        samplers.check(experiment)


def as_written(file: str, overrides: Iterable[str], smoke: bool) -> str:
    """The text of an experiment's file, and what was set beside it; without the password that `load` has found in
    it."""
    from ftlib.run import passwords

    text = Path(file).read_text(encoding="utf-8")
    if smoke:
        text += "# --smoke\n"
    return passwords.hidden(text + "".join(f"# override: {override}\n" for override in overrides))


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
    """Raises InputError for a file of data, or a folder of a model, that is not there, before a library is imported or
    Ray is started."""
    from ftlib.data.read import find_source, is_local
    from ftlib.errors import ConfigError, nearest

    models = {"model.name_or_path": experiment.model.name_or_path, "model.tokenizer": experiment.model.tokenizer}
    for key, value in {**models, "method.teacher": getattr(experiment.method, "teacher", None)}.items():
        path = Path(value or ".").expanduser()
        if path.exists() or "://" in str(value) or not str(value).startswith(("/", "./", "../", "~")):
            continue  # there, or a name that the Hub or the registry may know
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ConfigError(f"{key}: there is no '{value}' here.{nearest(path.name, beside)}")
    data = experiment.data
    named = [(called, section.train, section) for called, _, section in data.sources]
    named += [("eval", data.eval, data)] if data.eval else []
    named += [("replay.train", data.replay.train, data)] if data.replay else []
    for called, value, section in named:
        if is_local(str(value)):
            find_source("train", section.model_copy(update={"train": value}), called)
