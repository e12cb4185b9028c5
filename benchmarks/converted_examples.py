"""How many of another tool's example configurations become experiments, and why the others do not.

    python benchmarks/converted_examples.py FOLDER [--from TOOL] [--gpus N] [--dataset-info FILE] [--all]

Each file below FOLDER is converted, written, and read back by ftlib's schema and its rules of what goes together, with
a stand-in for the model and the data. A file that trains nothing (accelerate's configurations, exports) and one that is
not of text (images, sound) is counted apart. The examples are not ours: nothing of them is kept.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

from ftlib.config import Experiment
from ftlib.convert import TOOLS, Asked, Conversion, convert
from ftlib.convert.written import plain, text
from ftlib.errors import ConfigError, InputError

ENDINGS = {True: (".py", ".ipynb"), False: (".yaml", ".yml")}  # of Unsloth, and of the others
STAND_IN = ["model.name_or_path=stand-in", "data.train=stand-in.jsonl"]
NOT_TEXT = "ftlib trains on text"


def outcome(file: Path, tool: str | None, asked: Asked) -> tuple[str, list[str]]:
    """What became of a file, and the reasons: `converted`; `in part`, an experiment without some keys, which are named;
    `refused`, no experiment; `not text`; `no training`."""
    try:
        conversion = convert(file, tool, asked)
    except ConfigError as error:
        return "refused", [str(error).removeprefix(f"{file}: ")]
    except InputError as error:
        return "not text" if NOT_TEXT in str(error) else "no training", [str(error).removeprefix(f"{file}: ")]
    if any(fate.text.startswith(NOT_TEXT) for fate in conversion.refused):
        return "not text", [NOT_TEXT]
    told = [f"{fate.key}: {plain(fate.text)}" for fate in conversion.refused]
    try:
        read_back(conversion, file)
    except ConfigError as error:
        return "refused", told or [f"WRITTEN AND NOT READ: {error}"]
    return ("in part" if told else "converted"), told


def read_back(conversion: Conversion, file: Path) -> None:
    """Reads what was written as `ftlib check` reads it; raises ConfigError where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "x.yaml"
        written.write_text(text(conversion, file.name), encoding="utf-8")
        Experiment.load(written, STAND_IN if isinstance(conversion.at("data.train"), str) else STAND_IN[:1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--from", dest="tool", choices=TOOLS)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--dataset-info", type=Path)
    parser.add_argument("--all", action="store_true", help="print a line for each file")
    given = parser.parse_args()
    files = sorted(
        file for file in given.folder.rglob("*") if file.suffix in ENDINGS[given.tool == "unsloth"] and file.is_file()
    )
    asked = Asked(gpus=given.gpus, dataset_info=given.dataset_info)
    found = {file: outcome(file, given.tool, asked) for file in files}
    if given.all:
        for file, (kind, reasons) in found.items():
            print(f"{kind:12} {file.relative_to(given.folder)}  {' | '.join(reasons)}")
    counts = Counter(kind for kind, _ in found.values())
    of_text = counts["converted"] + counts["in part"] + counts["refused"]
    print(f"{len(files)} files: {counts['no training']} train nothing, {counts['not text']} are not of text")
    print(f"{of_text} of text:")
    for kind in ("converted", "in part", "refused"):
        print(f"{counts[kind]:5}  {counts[kind] / max(of_text, 1):6.1%}  {kind}")
    reasons = Counter(reason for kind, told in found.values() for reason in told)
    for reason, count in reasons.most_common():
        print(f"{count:5}  {reason}")


if __name__ == "__main__":
    main()
