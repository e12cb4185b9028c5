"""What the workers of a local Ray get from us."""

from __future__ import annotations

import os

import ray


def test_workers_are_as_nice_as_the_user_and_their_threads_wait_without_spinning(ray_local: None) -> None:
    @ray.remote(num_cpus=0)
    def told() -> tuple[int, str | None]:
        return os.getpriority(os.PRIO_PROCESS, 0), os.environ.get("OMP_WAIT_POLICY")

    assert ray.get(told.remote()) == (os.getpriority(os.PRIO_PROCESS, 0), "PASSIVE")
