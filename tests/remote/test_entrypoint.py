"""What a job on a cluster leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

WAITS = """
import sys, time
from pathlib import Path
from ftlib.remote.entrypoint import _removed_with_this_process
_removed_with_this_process(Path(sys.argv[1]))
print("there", flush=True)
time.sleep(600)
"""


def test_a_packed_run_goes_with_a_job_that_is_killed(tmp_path: Path) -> None:
    """Ray kills what has not ended three seconds after it was stopped."""
    file = tmp_path / "run of a job.tar"
    file.touch()
    job = subprocess.Popen([sys.executable, "-c", WAITS, str(file)], stdout=subprocess.PIPE)
    assert job.stdout is not None
    with job.stdout:
        assert job.stdout.readline() == b"there\n"
    assert file.exists()
    job.send_signal(signal.SIGKILL)
    job.wait()
    end = time.monotonic() + 60
    while file.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
