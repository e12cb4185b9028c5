"""The columns of a data set that lies here, by its first row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

MOST = 100_000  # characters of a first row


def columns_of(name: str) -> list[str] | None:
    """The columns of the first row of a file, or of the first file of a folder; None where there is none here, or it
    is of another kind."""
    path = Path(name)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    file = next((file for file in files if file.suffix in (".jsonl", ".json", ".csv") and file.is_file()), None)
    if file is None:
        return None
    try:
        with file.open(encoding="utf-8") as lines:
            first = lines.readline(MOST)
            if file.suffix == ".csv":
                return next(csv.reader([first]), None)
            if file.suffix == ".json":
                return _of_list(first + lines.read(MOST))
            row = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return None
    return [str(key) for key in row] if isinstance(row, dict) else None


def _of_list(text: str) -> list[str] | None:
    """The keys of the first object of a JSON list, of which only the beginning is read."""
    start = text.find("{")
    if start < 0:
        return None
    row, _ = json.JSONDecoder().raw_decode(text[start:])
    return [str(key) for key in row] if isinstance(row, dict) else None
