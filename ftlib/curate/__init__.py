"""From documents and tables to rows worth training on. `step` says what a step is, `build` runs a recipe."""
