"""A sweep beside a busy core against the same sweep alone: at most 1.6 times as long on two cores.

    python benchmarks/neighbour.py [--case natural] [--steps 60] [--trials 16] [--runs 1]

The neighbour is a process of Python that never waits. Both sweeps are those of `against_plain_tune.py`, in turn. What
the driver takes of a core while trials train is said too (at most 3 %).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from against_plain_tune import CASES, ROOT, make_inputs, ours_command

GOAL, DRIVER_GOAL = 1.6, 0.03


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=CASES, default="natural")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    case = CASES[options.case] | {"steps": options.steps, "trials": options.trials, "pack": "auto"}
    folder = Path(tempfile.mkdtemp(prefix="ftlib-bench-neighbour-"))
    make_inputs(folder, case)
    ratios = []
    for number in range(options.runs):
        alone, share = swept(folder, case, 2 * number)
        with neighbour():
            beside, _ = swept(folder, case, 2 * number + 1)
        ratios.append(beside / alone)
        print(
            f"alone {alone:.1f} s, beside a busy core {beside:.1f} s; the driver took {share:.1%} of a core", flush=True
        )
    print(f"{statistics.median(ratios):.2f}x as long (goal {GOAL}x), driver's goal {DRIVER_GOAL:.0%}")


@contextmanager
def neighbour() -> Iterator[None]:
    """Within, a process computes all the time."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def swept(folder: Path, case: dict[str, Any], number: int) -> tuple[float, float]:
    """Seconds from the first trial's start to the last one's end, and the driver's share of a core meanwhile."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "FTLIB_HOME": str(folder / "home")}
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            ours_command(folder, case, number), env=environment, cwd=ROOT, stdout=out, stderr=out
        )
        samples = list(sampled(process))
    if process.returncode:
        sys.exit(f"the sweep failed:\n{(folder / 'out').read_text()[-3000:]}")
    (events,) = (folder / f"ours-{number}").glob("*/events.jsonl")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    began = min(event["time"] for event in told if event["event"] == "trial_started")
    ended = max(event["time"] for event in told if event["event"] == "ended")
    first, *_, last = [sample for sample in samples if began < sample[0] < ended]
    return ended - began, (last[1] - first[1]) / (last[0] - first[0])


def sampled(process: subprocess.Popen[Any]) -> Iterator[tuple[float, float]]:
    """The time, and the processor seconds that a process took until then, five times a second until it ends."""
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        took = watched.cpu_times()
        yield time.time(), took.user + took.system
        time.sleep(0.2)


if __name__ == "__main__":
    main()
