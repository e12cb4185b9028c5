"""The data of an experiment as it is trained on; what is wrong with the method, the base or the adapter is said
before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.data import Prepared
    from ftlib.driver.listener import Listener


def prepared(experiment: Experiment, listener: Listener, told: bool = True, begun: str | None = None) -> Prepared:
    """The data as it is trained on, with a summary where it is `told`; `begun`: the hash of the rows that a run began
    with. Raises InputError for a method, a base or an adapter that cannot be, and DataError where the data has changed
    since and those rows are gone."""
    from ftlib.data import prepare, prepare_again
    from ftlib.driver.evaluate import check_tasks
    from ftlib.methods import check as check_method
    from ftlib.models.adapters.build import empty_model
    from ftlib.models.base import load_tokenizer, parent_of
    from ftlib.registry.version import root_of

    parent = parent_of(Path(experiment.model.name_or_path))
    if parent is not None:
        how = f" merged into {root_of(parent['base'])}" if "adapter" in parent else ""
        listener.say(f"base {parent['version']}{how}")
    with listener.busy("preparing data"):
        check_method(experiment)
        # A wrong config key or target module is said now.
        empty_model(experiment.model, experiment.adapter, experiment.method.head)
        check_tasks(experiment)
        tokenizer = load_tokenizer(experiment.model, experiment.method.head)
        rows, changed = experiment.method.rows, None
        if begun is None:
            data = prepare(experiment.data, rows, tokenizer)
        else:
            alone = _reads_data_itself(experiment)
            data, changed = prepare_again(experiment.data, rows, tokenizer, begun, only_unchanged=alone)
    if changed:
        listener.warn(changed)
    if told:
        listener.say(data.report.summary())
    return data


def _reads_data_itself(experiment: Experiment) -> bool:
    """Whether trials read the files of the data again: for the prompts of a teacher, or for points that change how rows
    are made."""
    paths = experiment.sweep.paths if experiment.sweep else []
    return experiment.method.type == "distill" or any(key.startswith(("data.", "model.")) for key in paths)
