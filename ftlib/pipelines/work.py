"""One step, done: by the functions that the commands call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.config.pipeline import (
    BuildStep,
    EvaluateStep,
    MonitorStep,
    PromoteStep,
    ServeStep,
    Step,
    SweepStep,
    TrainStep,
)
from ftlib.config.pipeline.step import promoted_as
from ftlib.errors import FtlibError, InputError
from ftlib.pipelines import endpoint
from ftlib.pipelines.names import DATA, REGISTRY
from ftlib.run.layout import ANSWERS, EVALUATION, RESOLVED

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.driver.listener import Listener
    from ftlib.driver.outcome import Outcome
    from ftlib.registry.version import Version
    from ftlib.run.directory import Run

BASE = "base"

Figures = dict[str, float | int | str]


@dataclass(frozen=True)
class Result:
    """What a step came to, as `Record` keeps it."""

    made: str = ""
    places: dict[str, str] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """What a step is done with. `before` are the places of what was begun of it and goes on; empty where it begins.
    `winners` are the places of steps that have trained. `keep` writes places that are known before the step ends."""

    listener: Listener
    folder: Path
    before: Mapping[str, str]
    winners: Mapping[str, Mapping[str, str]]
    until: float | None
    keep: Callable[[dict[str, str]], None]


def do(step: Step, setting: Setting) -> Result:
    """Does a step. Raises FtlibError for what fails, and KeyboardInterrupt where it was interrupted and can go on."""
    work: Callable[[Any, Setting], Result] = WORK[step.kind]
    return work(step, setting)


# --- data ---------------------------------------------------------------------------------------------------------


def _build(step: BuildStep, setting: Setting) -> Result:
    from ftlib.config.recipe import Recipe
    from ftlib.driver.data_build import build_data

    recipe = Recipe.load(step.build, step.overrides)
    logs = [number for number, source in enumerate(recipe.sources) if source.kind == "log"]
    cuts = [f"from.{number}.{'until'}={setting.until!r}" for number in logs]
    built = build_data(
        step.build, [*step.overrides, *_whole_sources(recipe, logs), *cuts], step.workers, setting.listener
    )
    version, files = built.version, built.version.manifest["data"]
    figures: Figures = {name.removesuffix(".jsonl"): files[name]["rows"] for name in files}
    figures |= {f"dropped by {key}": gone for key, told in built_counts(version.manifest) if (gone := told)}
    places = {"card": str(version.path / "README.md"), "hash": version.hash, "dropped": str(built.notes)}
    return Result(f"{DATA}{version.id}", places, figures)


def _whole_sources(recipe: Any, logs: list[int]) -> list[str]:
    """Sources that may be written as one text (log:NAME), as sections that take `until`."""
    return [f"from.{number}={{log: {recipe.sources[number].place}}}" for number in logs]


def built_counts(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    """How many rows each step of a recipe has dropped."""
    return [(key, sum(told["dropped"].values())) for key, told in manifest.get("counts", {}).items()]


# --- training -----------------------------------------------------------------------------------------------------


def _train(step: SweepStep | TrainStep, setting: Setting) -> Result:
    outcome = _continued(setting) or _begun(step, setting)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if why := outcome.why_no_winner():
        raise FtlibError(why)
    best = outcome.board.best
    assert best is not None
    places = {"run": str(outcome.run.path), "trial": best.trial}
    setting.keep(places)
    made, name = f"trial {best.trial} of {outcome.run.name}", promoted_as(step)
    notes = list(outcome.not_done)
    if name is not None:
        from ftlib.driver.task_gate import Conditions

        version = _promoted(outcome.run, best.trial, name, Conditions(), setting, notes)
        made, places = f"{REGISTRY}{version.id}", {**places, "card": str(version.path / "README.md")}
    return Result(made, places, _of_board(outcome), notes)


def _begun(step: SweepStep | TrainStep, setting: Setting) -> Outcome:
    from ftlib.driver.execute import start
    from ftlib.driver.load import as_written, load
    from ftlib.run.directory import new_name
    from ftlib.run.places import local_storage

    file = step.sweep if isinstance(step, SweepStep) else step.train
    texts = [*step.overrides, *([] if isinstance(step, SweepStep) else ["sweep=null"])]
    experiment = load(file, texts)
    name = new_name(experiment.name)
    setting.keep({"run": str(Path(local_storage(experiment.storage)) / name)})
    return start(experiment, as_written(file, texts, smoke=False), setting.listener, run_name=name)


def _continued(setting: Setting) -> Outcome | None:
    """The run that was begun before, brought to its end; None where there is none, or nothing can come of it."""
    from ftlib.config import Experiment
    from ftlib.driver.execute import go_on
    from ftlib.driver.outcome import has_ended
    from ftlib.run.directory import Run
    from ftlib.run.leaderboard import leaderboard

    place = setting.before.get("run")
    if place is None or not (Path(place) / RESOLVED).is_file():
        return None
    run = Run.open(place)
    experiment: Experiment = Experiment.parse(run.experiment, f"{run.path}/{RESOLVED}")
    if has_ended(experiment, run) and leaderboard(run).best is None:
        return None
    setting.listener.say(f"goes on with {run.path}")
    return go_on(experiment, run, setting.listener)


def _of_board(outcome: Outcome) -> Figures:
    board = outcome.board
    best = board.best
    assert best is not None
    found: dict[str, float | int | str | None] = {
        f"best {board.metric}": best.final,
        f"base {board.metric}": board.base_beside(best),
        "gain": board.gained(best),
        "trials": len(board.rows),
        "verdict": outcome.verdict,
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _promote(step: PromoteStep, setting: Setting) -> Result:
    from ftlib.driver.task_gate import Conditions
    from ftlib.run.directory import Run

    conditions = Conditions(
        canary=step.canary,
        engine=step.engine,
        max_rank=step.max_rank,
        merged=step.merged,
        unless_worse_than=None if step.unless_worse_than is None else Path(step.unless_worse_than),
        slack=step.slack,
        if_better_than=step.if_better_than,
        no_worse_than=step.no_worse_than,
        margin=step.margin,
        task=step.task,
    )
    places, notes = setting.winners[step.promote], list[str]()
    name = promoted_as(step)
    assert name is not None
    version = _promoted(Run.open(places["run"]), places["trial"], name, conditions, setting, notes)
    card = str(version.path / "README.md")
    return Result(f"{REGISTRY}{version.id}", {"card": card, "run": places["run"]}, {"version": version.id}, notes)


def _promoted(run: Run, trial: str, name: str, conditions: Any, setting: Setting, notes: list[str]) -> Version:
    """The version that a trial has become. Where a kill came after the promotion, it is that one."""
    from ftlib.driver.promote import promote
    from ftlib.run.remote_run import bring_weights

    if setting.before and (there := _newest(name, run, trial)) is not None:
        return there

    def say(sentence: str) -> None:
        notes.append(sentence)
        setting.listener.say(sentence)

    bring_weights(run, run.trial(trial))
    return promote(run, run.trial(trial), name, conditions, say)


def _newest(name: str, run: Run, trial: str) -> Version | None:
    from ftlib.registry import registry

    newest = registry.versions(name)[-1] if name in registry.names() else None
    told = newest.manifest if newest is not None else {}
    return newest if (told.get("run"), told.get("trial")) == (str(run.path), trial) else None


# --- evaluation ---------------------------------------------------------------------------------------------------


def _evaluate(step: EvaluateStep, setting: Setting) -> Result:
    from ftlib.driver.evaluate import evaluate, write
    from ftlib.registry.data_named import file_of

    models = {_model(name, step, setting): name for name in step.evaluate}
    task = step.task.model_copy(update={"data": file_of("task.data", step.task.data, "test")})
    results, found = evaluate(list(models), task)
    write(results.lines(), found, setting.folder)
    told = found["tasks"][task.name]
    if len(told["contenders"]) < len(models):
        raise FtlibError("; ".join(map(str, found["failed"])) or "not all models did the task.")
    ours = models[next(iter(models))]
    figures: Figures = {
        f"{models.get(name, name)} {metric}": number["value"]
        for name, one in told["contenders"].items()
        for metric, number in one["numbers"].items()
        if number["value"] is not None
    }
    figures |= {
        f"p of {ours} and {models.get(one['theirs'], one['theirs'])}, {one['metric']}": one["p"]
        for one in told["comparisons"]
        if one["p"] is not None
    }
    places = {"answers": str(setting.folder / ANSWERS), "numbers": str(setting.folder / EVALUATION)}
    return Result("", places, {"rows": told["rows"], **figures}, [str(one) for one in found["failed"]])


def _model(name: str, step: EvaluateStep, setting: Setting) -> str:
    """What `ftlib evaluate` calls a model."""
    if name in setting.winners:
        places = setting.winners[name]
        return f"{places['run']}/trials/{places['trial']}"
    if name != BASE:
        return name
    trained = next((one for one in step.evaluate if one in setting.winners), None)
    if trained is None:
        raise InputError("evaluate: base is the model that the training of a step began with: name such a step too.")
    return _root(Path(setting.winners[trained]["run"]))


def _root(run: Path) -> str:
    from ftlib.registry.version import root_of
    from ftlib.run.directory import Run

    opened = Run.open(run)
    return root_of(opened.resolved.get("base") or opened.experiment["model"])


# --- serving ------------------------------------------------------------------------------------------------------


def _serve(step: ServeStep, setting: Setting) -> Result:
    from ftlib.cluster.session import leave_ray

    told: Figures = {"url": f"{step.url}/v1"}
    if not endpoint.answers(step):
        leave_ray()
        told["process"] = str(endpoint.start(step, setting.folder))
        setting.listener.say(f"serving {', '.join(step.serve)} at {step.url}/v1: 'kill {told['process']}' ends it")
    elif not endpoint.serves(step):
        raise FtlibError(f"{step.url} answers, but not for {', '.join(step.serve)}: end that, or set another port.")
    return Result("", {"url": step.url}, told)


def _monitor(step: MonitorStep, setting: Setting) -> Result:
    from ftlib.pipelines.due import monitored

    report, why = monitored(step)
    if report is None:
        return Result("", {}, {}, [why])
    found: Figures = {"requests": report.requests, "sampled": report.samples, "version": report.version}
    if report.drift is not None:
        found["drift"] = round(report.drift, 4)
    drifted = ", ".join(finding.what for finding in report.drifted)
    return Result("", {}, found, [*([f"drifted: {drifted}"] if drifted else []), *report.notes])


WORK: dict[str, Callable[[Any, Setting], Result]] = {
    "build": _build,
    "sweep": _train,
    "train": _train,
    "evaluate": _evaluate,
    "promote": _promote,
    "serve": _serve,
    "monitor": _monitor,
}
