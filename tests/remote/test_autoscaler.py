"""Ray's autoscaler brings machines for a waiting sweep and takes them away after it: the script that measures it is the
test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import may_unshare

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "autoscaler.py"
POSSIBLE = may_unshare("--pid", "--fork", "--mount-proc")


@pytest.mark.matrix
@pytest.mark.skipif(not POSSIBLE, reason="no pid namespace of its own may be made here")
@pytest.mark.parametrize(("pack", "trials"), [("4", 12), ("off", 4)])
def test_machines_come_for_a_sweep_and_go_after_it(pack: str, trials: int) -> None:
    asked = ["--pack", pack, "--trials", str(trials), "--steps", "120", "--idle", "3"]
    done = subprocess.run([sys.executable, str(BENCHMARK), *asked], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machines"] == [0, 2, 0]
    assert found["trials"] == trials
    assert 0 < found["share"] < 1
