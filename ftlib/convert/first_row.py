"""The first row of a data set that lies here: what it is made of says what a tool does with it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

MOST = 100_000  # characters of a first row


def first_row(name: str) -> dict[str, Any] | None:
    """The first row of a file, or of the first file of a folder. None where there is none here, or it is of another
    kind, or longer than a first look goes."""
    path = Path(name)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    file = next((file for file in files if file.suffix in (".jsonl", ".json", ".csv") and file.is_file()), None)
    if file is None:
        return None
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            text = lines.read(MOST)
        if file.suffix == ".csv":
            return next(csv.DictReader(text.splitlines()), None)
        row, _ = json.JSONDecoder().raw_decode(text[max(text.find("{"), 0) :])
    except (OSError, ValueError, RecursionError, csv.Error):
        return None
    return row if isinstance(row, dict) else None
