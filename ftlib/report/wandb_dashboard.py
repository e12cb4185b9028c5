"""The dashboard of a run in W&B, as code: a workspace and a report with the same panels.

https://docs.wandb.ai/guides/reports and wandb-workspaces, which make both. Nothing here asks the network but `save`.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from typing import Any

from ftlib.config import TrackSection, Wandb
from ftlib.errors import FtlibError, InputError
from ftlib.run.directory import Run
from ftlib.run.plain_text import plain
from ftlib.run.tracking.names import OBJECTIVE, STEP, Names
from ftlib.run.tracking.results import Results
from ftlib.run.tracking.wandb_settings import base_url, reachable, wandb_mode
from ftlib.run.tracking.wandb_tracker import group_of

WIDE, HALF, HIGH = 24, 12, 8  # of a panel, in columns and rows of W&B's grid
TITLE = 100  # characters of a name: W&B takes 128


@dataclass(frozen=True)
class Dashboard:
    """A workspace (live panels beside the runs) and a report (a page to show), both of wandb-workspaces."""

    workspace: Any
    report: Any

    def to_json(self) -> str:
        """Both as W&B's server takes them."""
        specs = {"workspace": self.workspace._to_model(), "report": self.report._to_model()}
        return json.dumps({name: spec.model_dump(by_alias=True, exclude_none=True, mode="json")
                           for name, spec in specs.items()}, indent=2)  # fmt: skip

    def save(self) -> tuple[str, str]:
        """Saves both; returns the URLs of the workspace and of the report. Raises FtlibError where W&B refuses."""
        try:
            return str(self.workspace.save().url), str(self.report.save().url)
        except Exception as error:  # wandb-workspaces has no error class of its own
            why = plain(str(error)).strip().splitlines() or [type(error).__name__]
            raise FtlibError(f"W&B at {base_url()} does not take the dashboard: {why[0]}") from error


def dashboard(run: Run, online: bool) -> Dashboard:
    """The dashboard of a run's trials. Offline its entity may be empty, and W&B is asked nothing.

    Raises InputError where wandb-workspaces is missing, the run has no W&B, or W&B must not be told of it, and
    FtlibError where W&B cannot be reached.
    """
    settings = _settings(run)
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise InputError("the dashboard needs wandb-workspaces: pip install 'ftlib[dashboards]'.")
    if online and (mode := wandb_mode(settings)) != "online":
        raise InputError(f"W&B is {mode} here: set WANDB_API_KEY, or write the dashboard with --out FILE.")
    if online and not reachable():  # the libraries would try for half a minute
        raise FtlibError(f"W&B at {base_url()} cannot be reached: write the dashboard with --out FILE.")
    os.environ.setdefault("WANDB_SILENT", "true")  # the libraries print the URLs too
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    place = {"entity": settings.entity or (_default_entity() if online else ""), "project": settings.project}
    sections = _panels(run)
    title = f"{run.name[:TITLE]} sweep"
    workspace = ws.Workspace(
        **place,
        name=title,
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis=STEP),
        runset_settings=ws.RunsetSettings(filters=_trials(run, settings), order=_order(run)),
    )
    runs = wr.Runset(**(place if online else {}), name="trials", filters=_trials(run, settings))
    blocks = [wr.H2("Verdict"), wr.P(Results.of(run).verdict)]
    for name, panels in sections.items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return Dashboard(workspace, wr.Report(**place, title=title, blocks=blocks, width="fluid"))


def _settings(run: Run) -> Wandb:
    settings = TrackSection.model_validate(run.experiment.get("track") or {}).wandb
    if settings is None:
        raise InputError(f"{run.path} has no runs in W&B: its track.wandb is null.")
    return settings


def _default_entity() -> str:
    import wandb

    try:
        return str(wandb.Api().default_entity)
    except Exception as error:
        raise FtlibError(f"W&B at {base_url()} does not say whose account this is: set track.wandb.entity.") from error


def _trials(run: Run, settings: Wandb) -> list[Any]:
    """The filter that leaves the run's trials, without the base and the sweep's own run."""
    from wandb_workspaces import expr

    return [expr.Metric("Group") == group_of(run, settings), expr.Metric("JobType") == "trial"]


def _order(run: Run) -> list[Any]:
    """The best first."""
    from wandb_workspaces import expr

    return [expr.Ordering(expr.Summary(OBJECTIVE), ascending=run.objective[1] == "min")]


def _panels(run: Run) -> dict[str, list[Any]]:
    """The sections by name. Without a sweep there are no parameters to compare."""
    import wandb_workspaces.reports.v2 as wr

    names = Names.of(run)
    swept = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name), log=_is_log(run, path) or None)
             for path, name in names.swept.items()]  # fmt: skip
    best = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(OBJECTIVE), display_name=run.objective[0])
    parameters = [
        wr.ParallelCoordinatesPlot(title="Parameters and the objective", columns=[*swept, best],
                                   layout=wr.Layout(0, 0, WIDE, HIGH)),
        wr.ParameterImportancePlot(with_respect_to=OBJECTIVE, layout=wr.Layout(0, HIGH, WIDE, HIGH)),
    ]  # fmt: skip
    compared = [wr.RunComparer(diff_only="split", layout=wr.Layout(0, 0, WIDE, HIGH))]
    return {
        **({"Parameters": parameters} if swept else {}),
        "Curves": [_curve(name, place) for place, name in enumerate(_curves(run, names))],
        "Trials": compared,
    }


def _is_log(run: Run, path: str) -> bool:
    dimension = run.experiment["sweep"]["space"].get(path)
    return isinstance(dimension, dict) and bool(dimension.get("log"))


def _curves(run: Run, names: Names) -> list[str]:
    """The objective first, then the losses, the rate and the speed."""
    shown = (run.objective[0], "eval_loss", "loss", "learning_rate", "machine/tokens_per_second")
    return list(dict.fromkeys(names.metric(name) for name in shown))


def _curve(name: str, place: int) -> Any:
    import wandb_workspaces.reports.v2 as wr

    layout = wr.Layout(HALF * (place % 2), HIGH * (place // 2), HALF, HIGH)
    return wr.LinePlot(title=name, x=STEP, y=[name], layout=layout)
