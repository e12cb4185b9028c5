"""A recipe: the YAML file of `ftlib data build`, from documents and tables to data that is worth training on.

    name: tickets
    from: [{pdf: manuals/*.pdf}, {csv: tickets.csv, columns: {text: body}}]
    steps:
      - clean
      - dedupe: {near: 0.85}
      - split: {test: 0.1, stratify: label}

`recipe` is the whole file, `source` a member of `from`, `step` a member of `steps`. The settings of the steps stand in
`texts` (what one row is), `looking` (what rows are beside each other, and what must not be in them), `dividing` (how
many rows, and where) and `making` (rows that a model writes). `ftlib/curate/steps/NAME.py` has the code of a step.
"""

from ftlib.config.recipe.recipe import Recipe
from ftlib.config.recipe.source import SOURCE_KINDS, SourceSection
from ftlib.config.recipe.step import STEP_NAMES, StepSection

__all__ = ["Recipe", "SOURCE_KINDS", "STEP_NAMES", "SourceSection", "StepSection"]
