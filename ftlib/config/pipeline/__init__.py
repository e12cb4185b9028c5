"""A pipeline: the YAML file of `ftlib pipeline`, the whole way from documents to a served model.

    name: manual
    steps:
      data:    {build: recipes/manual.yaml}
      sft:     {sweep: sft.yaml, set: {data.train: data:manual}, as: manual-sft}
      release: {promote: sft, as: manual, if_better_than: base}
    when: drift > 0.2 or new_rows > 500

`pipeline` is the whole file, `step` a member of `steps`, `order` the order of steps, `when` the condition on which all
of it is done again. `ftlib/pipelines/` does it.
"""

from ftlib.config.pipeline.pipeline import Pipeline
from ftlib.config.pipeline.step import (
    BuildStep,
    EvaluateStep,
    MonitorStep,
    PromoteStep,
    ServeStep,
    Step,
    SweepStep,
    TrainStep,
)

__all__ = [
    "BuildStep",
    "EvaluateStep",
    "MonitorStep",
    "Pipeline",
    "PromoteStep",
    "ServeStep",
    "Step",
    "SweepStep",
    "TrainStep",
]
