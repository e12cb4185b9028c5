"""MLflow: a parent run for the sweep, a nested run for each trial, and the winner in the model registry.

MLflow gives its own ids. They are kept in `tracking.json`, so a resumed sweep goes on in the runs it had.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from ftlib.config import Mlflow
from ftlib.errors import ConfigError
from ftlib.run.directory import Run, Trial
from ftlib.run.layout import ADAPTER
from ftlib.run.passwords import without
from ftlib.run.tracking.handed import Handed
from ftlib.run.tracking.names import OBJECTIVE, Names
from ftlib.run.tracking.results import Results, best_value

PARENT = "sweep"
STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
SQLITE = "sqlite:///"
UNKNOWN = re.compile(r"[^\w\-./: ]")  # what MLflow takes in no name
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its 7 tries would hold up the other trackers for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


def mlflow_uri(settings: Mlflow) -> str:
    """Where MLflow is. Raises ConfigError where nothing says so, a password stands in it, or MLflow is missing."""
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigError("track.mlflow.uri is missing: set it, or MLFLOW_TRACKING_URI.")
    if settings.uri and without(uri) != uri:
        raise ConfigError("track.mlflow.uri holds a password: set the whole URI as MLFLOW_TRACKING_URI, and uri: null.")
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigError("track.mlflow needs MLflow: pip install 'ftlib[mlflow]'.")
    return uri


class MlflowTracker:
    """Writes through MLflow's client, which has no state of its own in this process."""

    name = "mlflow"

    def __init__(self, run: Run, settings: Mlflow, uri: str, handed: Handed) -> None:
        self.run, self.settings, self.uri, self.handed = run, settings, uri, handed
        self.names = Names.of(run)
        self.opened: set[str] = set()

    def log(self, trial: Trial, row: dict[str, Any]) -> None:
        """Takes one row."""
        from mlflow.entities import Metric

        at = int(1000 * row.get("time", time.time()))
        metrics = [Metric(_name(name), value, at, row["step"]) for name, value in self.names.row(row).items()]
        self.client.log_batch(self._open(trial), metrics=metrics)

    def end(self, trial: Trial, state: str) -> None:
        """Closes one trial's run, with its best evaluation as the metric `objective`."""
        found, best = self._open(trial), best_value(self.run, trial)
        if best is not None:
            self.client.log_metric(found, OBJECTIVE, best)
        self.client.set_tag(found, "ftlib.state", state)
        self._close(trial.id, STATUS[state])

    def conclude(self, results: Results) -> None:
        """The sweep's own run: its files, its verdict, its winner."""
        parent = self._parent()
        self.client.set_tag(parent, "mlflow.note.content", results.trouble or results.verdict)
        for file in results.files(answers=True):
            self.client.log_artifact(parent, str(file))
        for name, value in results.numbers.items():
            self.client.log_metric(parent, _name(name), value)
        if results.winner is not None:
            self._keep_winner(parent, results, results.winner)
        self._close(PARENT, "FAILED" if results.trouble else "FINISHED")

    def close(self) -> None:
        """Closes the runs of trials that did not end, and the sweep's."""
        for name in sorted(self.opened):
            self._close(name, "KILLED")

    @cached_property
    def client(self) -> Any:
        """MLflow's client. A database is made at its first use."""
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @cached_property
    def experiment_id(self) -> str:
        """MLflow's experiment, made where there is none of that name."""
        found = self.client.get_experiment_by_name(self.settings.experiment)
        if found is not None:
            return str(found.experiment_id)
        return str(self.client.create_experiment(self.settings.experiment, artifact_location=_artifacts(self.uri)))

    def _parent(self) -> str:
        return self._run(PARENT, self.run.name, {})

    def _open(self, trial: Trial) -> str:
        return self._run(trial.id, trial.id, {"mlflow.parentRunId": self._parent()}, trial)

    def _run(self, key: str, name: str, tags: dict[str, str], trial: Trial | None = None) -> str:
        """The id of a run of MLflow's, made where there is none and opened again where it was closed."""
        kept = self.handed.of(self.name, key)
        if "id" not in kept:
            tags = {"mlflow.runName": name, "mlflow.source.name": "ftlib", "ftlib.run": self.run.name, **tags}
            data = self.run.data_versions.items()
            tags |= {f"ftlib.{key}": f"{told['version']} {told['hash']}" for key, told in data}
            kept["id"] = self.client.create_run(self.experiment_id, tags=tags).info.run_id
            self.handed.save()
            self._describe(kept["id"], trial)
        elif key not in self.opened:
            self.client.update_run(kept["id"], status="RUNNING")
        self.opened.add(key)
        return str(kept["id"])

    def _describe(self, found: str, trial: Trial | None) -> None:
        """A trial's point as parameters; the experiment as the sweep's file."""
        if trial is None:
            self.client.log_dict(found, self.run.experiment, "experiment.json")
            return
        for name, value in self.names.parameters(trial.params).items():
            self.client.log_param(found, _name(name), value)

    def _close(self, key: str, status: str) -> None:
        self.client.set_terminated(self.handed.of(self.name, key)["id"], status)
        self.opened.discard(key)

    def _keep_winner(self, parent: str, results: Results, winner: Trial) -> None:
        """Its adapter, or what is to be registered, as the artifact of its own run."""
        self.client.set_tag(parent, "ftlib.winner", winner.id)
        folder = winner.weights
        if folder is None:
            self.client.set_tag(parent, "ftlib.winner_is", "not sent: its weights are not on this machine")
            return
        if folder.name != ADAPTER and self.settings.registered_model_name is None:
            self.client.set_tag(parent, "ftlib.winner_is", "not sent: a whole model is sent to be registered alone")
            return
        found = self._open(winner)
        self.client.log_artifacts(found, str(folder), folder.name)
        if self.settings.registered_model_name is not None:
            self._register(self.settings.registered_model_name, found, folder.name, results.verdict)
        self._close(winner.id, STATUS.get(winner.state, "KILLED"))

    def _register(self, name: str, found: str, folder: str, verdict: str) -> None:
        """The winner as the next version of `name`; one that has been registered already is not again."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(name)
        except MlflowException:
            self.client.create_registered_model(name)
        if self.client.search_model_versions(f"name = '{name}' and run_id = '{found}'"):
            return
        source = f"{self.client.get_run(found).info.artifact_uri}/{folder}"
        self.client.create_model_version(name, source, run_id=found, description=verdict)


def _artifacts(uri: str) -> str | None:
    """Beside a database in a file: MLflow would put them into the folder that the command is given in."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).absolute().parent / "mlruns").as_uri()


def _name(name: str) -> str:
    return UNKNOWN.sub("_", name)
