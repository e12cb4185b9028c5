"""`steps:` of a pipeline. Each step is a mapping; one of its keys says what is done: build, sweep, train, evaluate,
promote, serve or monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError, create_model

from ftlib.config.evaluation import TaskSection
from ftlib.config.messages import explain
from ftlib.config.section import Section
from ftlib.errors import ConfigError, nearest

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[
    list[Text],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]),
]
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
AS = "The name in the registry that the winner is promoted to, once it has passed the gate. Other steps name it as "
AS += "registry:NAME. null promotes nothing."


class _Step(Section):
    kind: ClassVar[str]
    needs: Texts = Field(default_factory=list)
    """Steps that come before. Steps that make what a file of this step names (data:NAME, registry:NAME) come before it
    anyway."""


class _OfFile(_Step):
    set: dict[str, Any] = Field(default_factory=dict)
    """Values by their paths in the file, {train.max_steps: 40}, as KEY=VALUE on the command line."""

    @property
    def overrides(self) -> list[str]:
        """The same as texts, path=JSON."""
        import json

        return [f"{path}={json.dumps(value)}" for path, value in self.set.items()]


class BuildStep(_OfFile):
    """`build:` a recipe is done, as `ftlib data build` does it. Other steps name its rows as data:NAME."""

    kind: ClassVar[str] = "build"
    build: Text
    """The file of the recipe."""
    workers: int | None = Field(default=None, ge=1)
    """Processes that work at once. null is one a core."""


if TYPE_CHECKING:

    class _Trained(_OfFile):
        """A step with the key `as`."""

    class _Promoted(_Step):
        """A step with the key `as`."""
else:  # `as` is a word of Python
    _Trained = create_model(
        "_Trained",
        __base__=_OfFile,
        **{"as": (Annotated[str | None, Field(pattern=NAME, description=AS)], None)},
    )
    _Promoted = create_model(
        "_Promoted",
        __base__=_Step,
        **{"as": (Annotated[str, Field(pattern=NAME, description="The name in the registry.")], ...)},
    )


class SweepStep(_Trained):
    """`sweep:` an experiment is swept, as `ftlib sweep` does it."""

    kind: ClassVar[str] = "sweep"
    sweep: Text
    """The file of the experiment."""


class TrainStep(_Trained):
    """`train:` an experiment is trained once, as `ftlib train` does it."""

    kind: ClassVar[str] = "train"
    train: Text
    """The file of the experiment."""


def _task(value: Any) -> Any:
    return {"name": "task", **value} if isinstance(value, dict) else value


class EvaluateStep(_Step):
    """`evaluate:` models do a task, as `ftlib evaluate` has them do it. The first one is compared with the others."""

    kind: ClassVar[str] = "evaluate"
    evaluate: Texts = Field(min_length=1)
    """The models: steps that train (their winners), `base` (the model that the training of the first such step began
    with), folders, names on the Hub, registry:NAME, or https://HOST/v1#NAME."""
    task: Annotated[TaskSection, BeforeValidator(_task)]
    """What they do: the keys of a task of an experiment."""


class PromoteStep(_Promoted):
    """`promote:` the winner of a step becomes the next version of a name, as `ftlib promote` does it, with the same
    conditions."""

    kind: ClassVar[str] = "promote"
    promote: Text
    """The step that has trained it."""
    if_better_than: str | None = None
    """Only if it does the tasks of its experiment better than this one by more than chance, and has forgotten nothing:
    base, few_shot, rag, or a name in the registry."""
    no_worse_than: str | None = None
    """Only if it does the tasks no worse than this one by `margin`, and has forgotten nothing."""
    margin: float | None = Field(default=None, gt=0)
    """How much worse it may be, in the metric's unit. null is 0.02."""
    task: str | None = None
    """The task of the experiment to compare on. null is each task of the role target."""
    unless_worse_than: str | None = None
    """Only if its loss on this file is no higher than that of the version which the name means now."""
    slack: float = Field(default=0.0, ge=0)
    """How much higher that loss may be: 0.01 for one per cent."""
    canary: float | None = Field(default=None, gt=0, lt=1)
    """The share of the requests that it is tried on. null makes it what the name means."""
    engine: Literal["bank", "vllm"] = "bank"
    """What serves it."""
    max_rank: int | None = Field(default=None, ge=1)
    """The largest rank that the engine is set up for."""
    merged: bool = False
    """Whether the model is promoted that the adapter gives, computed into its base."""

    @property
    def rivals(self) -> list[str]:
        """Whom it is compared with."""
        return [name for name in (self.if_better_than, self.no_worse_than) if name is not None]


class ServeStep(_Step):
    """`serve:` an endpoint answers for names of the registry. It goes on after the pipeline, and follows promotions. A
    step finds the endpoint that runs, or starts one."""

    kind: ClassVar[str] = "serve"
    serve: Texts = Field(min_length=1)
    """The names."""
    host: str = "127.0.0.1"
    """The address that it is bound to."""
    port: int = Field(default=8000, ge=1, le=65535)
    """The port."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Options of the endpoint by their paths, {logs.sample: 0.1}."""

    @property
    def url(self) -> str:
        """Where it answers this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class MonitorStep(_Step):
    """`monitor:` the traffic of a name is compared with its training data, as `ftlib monitor` does it, each time."""

    kind: ClassVar[str] = "monitor"
    monitor: Text
    """The name in the registry."""
    hours: float | None = Field(default=None, gt=0)
    """Only the last hours. null takes the whole log."""
    log: Texts = Field(default_factory=list)
    """Files of the log. An empty list takes the endpoint's own."""


Step = BuildStep | SweepStep | TrainStep | EvaluateStep | PromoteStep | ServeStep | MonitorStep
KINDS: dict[str, type[Step]] = {
    kind.kind: kind for kind in (BuildStep, SweepStep, TrainStep, EvaluateStep, PromoteStep, ServeStep, MonitorStep)
}


def step_of(name: str, tree: Any, source: str) -> Step:
    """The step in a mapping. Raises ConfigError for one that does nothing, or two things, and for keys that it does not
    take."""
    where = f"{source}: steps.{name}"
    kinds = [kind for kind in KINDS if kind in tree] if isinstance(tree, Mapping) else []
    if len(kinds) != 1:
        near = "" if kinds else next((found for key in _keys(tree) if (found := nearest(key, KINDS))), "")
        told = f"says {' and '.join(kinds)}" if kinds else "says none of them"
        raise ConfigError(f"{where}: a step says one of {', '.join(KINDS)}, but this one {told}.{near}")
    try:
        return KINDS[kinds[0]].model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, KINDS[kinds[0]], where)) from None


def promoted_as(step: Step) -> str | None:
    """The key `as`: the name in the registry that a step gives to a winner; None where it gives none."""
    found: str | None = getattr(step, "as", None)
    return found


def _keys(tree: Any) -> list[str]:
    return [str(key) for key in tree] if isinstance(tree, Mapping) else []
