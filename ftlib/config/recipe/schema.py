"""A recipe as a JSON Schema, for editors."""

from __future__ import annotations

from typing import Any

from ftlib.config.recipe.recipe import FROM, Recipe
from ftlib.config.schema import DRAFT, descriptions, sections


def recipe_schema() -> dict[str, Any]:
    """The schema of one file. What it cannot say, `ftlib data build` says."""
    tree = Recipe.model_json_schema()
    for section in sections(Recipe):
        place = tree if section is Recipe else tree["$defs"][section.__name__]
        for name, text in descriptions(section).items():
            place["properties"][name]["description"] = text
    tree["properties"]["from"]["description"] = FROM
    return {"$schema": DRAFT, "title": "A recipe of ftlib", **tree}
