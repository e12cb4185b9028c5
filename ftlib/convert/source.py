"""A file of another tool, read with care: YAML as an experiment is read, Python and notebooks as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftlib.config.loader import read_mapping
from ftlib.errors import ConfigError

MAX_CODE = 1_000_000  # bytes of Python
MAX_NOTEBOOK = 30_000_000  # bytes: a notebook holds the pictures that its cells have drawn
CODE = (".py", ".ipynb")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a configuration. Raises ConfigError in one sentence for anything else."""
    return read_mapping(path, "a configuration")


def read_code(path: Path) -> list[str]:
    """The pieces of Python in a script (one) or a notebook (one a cell), without the lines that are the notebook's
    own (`!pip`, `%%capture`). Raises ConfigError in one sentence."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file.")
    notebook = path.suffix == ".ipynb"
    most = MAX_NOTEBOOK if notebook else MAX_CODE
    if path.stat().st_size > most:
        raise ConfigError(f"{path}: larger than {most:,} bytes; a training script is a few pages.")
    try:
        text = path.read_text(encoding="utf-8")
        cells = list(_cells(json.loads(text))) if notebook else [text]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as {'a notebook' if notebook else 'UTF-8 text'}: {error}.") from None
    if sum(map(len, cells)) > MAX_CODE:
        raise ConfigError(f"{path}: its code is larger than {MAX_CODE:,} characters; a training script is a few pages.")
    return [_python(cell) for cell in cells if not cell.lstrip().startswith(OTHER_LANGUAGES)]


OTHER_LANGUAGES = ("%%bash", "%%sh", "%%writefile", "%%html", "%%javascript", "%%script")


def _cells(notebook: Any) -> Iterator[str]:
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError("it has no list of cells")
    for cell in cells:
        source = cell.get("source") if isinstance(cell, dict) and cell.get("cell_type") == "code" else None
        if isinstance(source, str | list):
            yield source if isinstance(source, str) else "".join(str(line) for line in source)


def _python(cell: str) -> str:
    """The cell with `pass` in the place of lines that only a notebook understands."""
    return "\n".join(_line(line) for line in cell.splitlines())


def _line(line: str) -> str:
    bare = line.lstrip()
    return f"{line[: len(line) - len(bare)]}pass" if bare.startswith(("!", "%")) else line
