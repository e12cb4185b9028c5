"""The tasks on a machine of the cluster that has what a worker of the experiment has: a driver often has no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftlib.config import Experiment
    from ftlib.run.directory import Run


def on_a_worker(experiment: Experiment, run: Run, trial: str, template: str | None) -> tuple[dict[str, Any], list[str]]:
    """As `evaluate.compare_winner`, in a task of Ray's with the resources of one worker.

    Raises FtlibError as that does, and where the worker is lost.
    """
    import ray

    from ftlib.errors import FtlibError
    from ftlib.run.places import url_of

    resources = dict(experiment.scale.resources_per_worker)
    options = {"num_cpus": resources.pop("CPU", 1), "num_gpus": resources.pop("GPU", 0), "resources": resources}
    work = ray.remote(max_retries=0, **options)(_work)
    try:
        told = ray.get(work.remote(experiment.to_dict(), url_of(run) or str(run.path), trial, template))
    except ray.exceptions.RayTaskError as error:
        raise FtlibError(str(error.cause)) from None
    except ray.exceptions.RayError as error:
        raise FtlibError(f"the worker that did them was lost ({type(error).__name__})") from None
    found: tuple[dict[str, Any], list[str]] = told
    return found


def _work(tree: dict[str, Any], place: str, trial: str, template: str | None) -> tuple[dict[str, Any], list[str]]:
    from ftlib.cluster import vault
    from ftlib.config import Experiment
    from ftlib.driver.evaluate import compare_winner
    from ftlib.run.remote_run import open_run

    vault.receive()
    return compare_winner(Experiment.parse(tree), open_run(place), trial, template)
