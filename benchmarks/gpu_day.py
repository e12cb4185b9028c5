"""All that is to be known of a CUDA device, in eight minutes: is it right, and what bounds it.

    python benchmarks/gpu_day.py [--out FOLDER] [--parts step-1b dpo] [--minutes 8]
    python benchmarks/gpu_day.py --tiny     # the same code on a CPU, with tiny models: tries the script

Each part is a process of its own with a limit in seconds. FOLDER/gpu_day.jsonl gets a line a part, as soon as it has
ended: its rows, and the reason where it failed or where its time was up; what it had found by then is kept. What the
processes said is in FOLDER/gpu_day.log. docs/packs.md, "On a GPU", says how to spend a short lease.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# name: seconds. In the order of their worth: a lease that ends early has the first ones.
PARTS = {
    "machine": 30,
    "certificates-float32": 60,
    "certificates-bfloat16": 60,
    "waits": 40,
    "update": 40,
    "step-135m": 45,
    "step-1b": 45,
    "step-8b": 75,
    "trainer-lora": 60,
    "attention": 40,
    "dpo": 45,
    "qlora": 45,
    "serving": 45,
    "low-rank": 20,
    "trainer-dpo": 60,
    "trainer-qlora": 60,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu_day")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=8.0, help="of all parts; what has not begun by then is left")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU: tries the script")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    lines = [run(part, options, end - time.monotonic()) for part in options.parts]
    failed = [line["part"] for line in lines if "error" in line]
    print(f"{options.out / 'gpu_day.jsonl'}: {len(lines) - len(failed)} parts of {len(lines)}")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def run(part: str, options: argparse.Namespace, left: float) -> dict[str, Any]:
    """One part; its line, which is also written."""
    line: dict[str, Any] = {"part": part, "seconds": 0.0, "rows": []}
    limit = min(PARTS[part] * (10 if options.tiny else 1), left)
    if limit < 5:
        line["error"] = "the time of all parts was up"
    else:
        with tempfile.TemporaryDirectory(prefix="ftlib-gpu-") as folder:
            _measure(line, options, limit, Path(folder))
    with (options.out / "gpu_day.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{part}: {line.get('error') or 'done'} ({line['seconds']} s)", flush=True)
    for row in line["rows"]:
        print("    " + ", ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
    return line


def _measure(line: dict[str, Any], options: argparse.Namespace, limit: float, folder: Path) -> None:
    started, rows = time.monotonic(), folder / "rows.jsonl"
    command = [sys.executable, str(Path(__file__).with_name("gpu_parts.py")), line["part"], str(rows)]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [*command, *["--tiny"] * options.tiny],
            env=_environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        said = log.read()
    line["seconds"] = round(time.monotonic() - started, 1)
    line["rows"] = [json.loads(row) for row in rows.read_text().splitlines()] if rows.exists() else []
    if status is None:
        line["error"] = f"its {limit:.0f} seconds were up"
    elif status:
        line["error"] = (said.strip().splitlines() or [f"it ended with {status}"])[-1][:500]
    with (options.out / "gpu_day.log").open("a") as file:
        file.write(f"--- {line['part']}\n{said[-20000:]}\n")


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "FTLIB_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TMPDIR": str(folder),
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
