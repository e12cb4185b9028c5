"""The engines of an endpoint, one a base: how each is deployed, and how the HTTP side finds and starts them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException

from ftlib.registry import registry
from ftlib.registry.version import Version
from serve.engine.options import APPLICATION, Endpoint
from serve.front.catalog import engine_name, labels_of

QUIET = {"enable_access_log": False, "log_level": "WARNING"}

IDLE = 30.0  # seconds after which an engine that no name means may give way to another

log = logging.getLogger("ray.serve")


def check(endpoint: Endpoint, version: Version) -> None:
    """Raises InputError for a version that must not be loaded, or that the engine of this endpoint cannot serve, and
    FtlibError for one whose manifest is damaged."""
    registry.check_manifest(version)
    registry.check_loadable(version)
    if endpoint.engine.type == "vllm" and not labels_of(version):
        registry.check_loadable(version, engine="vllm")


def deployment(endpoint: Endpoint, version: Version) -> serve.Application:
    """The engine that answers for a version, and for all that share its base."""
    replicas, engine = endpoint.replicas, endpoint.engine
    if replicas.max > replicas.min:
        load: dict[str, Any] = {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": engine.max_rows,
        }
        number: dict[str, Any] = {"autoscaling_config": load}
    else:
        number = {"num_replicas": replicas.min}
    made = serve.deployment(
        _class(endpoint, version),
        name=engine_name(version),
        ray_actor_options={"num_cpus": replicas.num_cpus, "num_gpus": replicas.num_gpus},
        # The engine's own queue is shorter, so that it refuses, and not Serve after it.
        max_ongoing_requests=2 * (engine.max_rows + engine.max_waiting) + 32,
        max_queued_requests=engine.max_waiting + 32,
        max_constructor_retry_count=1,  # a base that changed stays changed
        health_check_period_s=2,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=endpoint.engine.deadline,  # what it has begun ends by then
        logging_config=QUIET,
        **number,
    )
    return made.bind(version, engine, max(1, math.floor(replicas.num_cpus)))


class Engines:
    """Handles by engine name: those bound to the HTTP side, and those started since, each as its own application.

    `meant` are the engines of what names mean now. Of others, which somebody asked for by a version's number, at most
    `max_extra_engines` stay: the one that was asked longest ago gives way.
    """

    def __init__(self, endpoint: Endpoint, bound: dict[str, Any]) -> None:
        self.meant: set[str] = set()
        self._endpoint = endpoint
        self._handles = {name: _streaming(handle) for name, handle in bound.items()}
        self._plain = dict(bound)
        self._starting: dict[str, threading.Thread] = {}
        self._started: OrderedDict[str, float] = OrderedDict()  # when each was asked last, the longest ago first
        self._lock = threading.Lock()

    def stream(self, version: Version) -> Any:
        """The handle whose methods give one piece after the other."""
        return self._handles[self._used(version)]

    def handle(self, version: Version) -> Any:
        return self._plain[self._used(version)]

    def answers(self, version: Version) -> bool:
        """Whether an engine answers for the version now."""
        return engine_name(version) in self._handles

    def ready(self, version: Version) -> bool:
        """Whether an engine answers for the version. One that is not there is started, and is ready later.

        Raises InputError for a version that must not be served.
        """
        check(self._endpoint, version)
        name = engine_name(version)
        if name in self._handles:
            return True
        with self._lock:
            started = self._starting.get(name)
            if started is None:
                self._starting[name] = threading.Thread(target=self._start, args=(name, version), daemon=True)
                self._starting[name].start()
            elif not started.is_alive():
                del self._starting[name]  # it failed, and its log says why: the next look tries again
        return False

    def reach(self, version: Version) -> bool:
        """As `ready`, for a version that no name means: its engine is started only where there is room for it."""
        name = engine_name(version)
        if name not in self._handles and not self._starting.get(name) and not self._make_room():
            return False
        return self.ready(version)

    def _make_room(self) -> bool:
        """Whether one more engine may be there that no name means. One that nobody has asked for a while is ended: it
        answers first what it has begun."""
        with self._lock:
            extra = [name for name in self._started if name not in self.meant]
            starting = sum(thread.is_alive() for thread in self._starting.values())
            if len(extra) + starting < self._endpoint.max_extra_engines:
                return True
            idle = next((name for name in extra if self._started[name] < time.monotonic() - IDLE), None)
            if idle is None:
                return False
            for kept in (self._handles, self._plain, self._started, self._starting):
                kept.pop(idle, None)
        log.warning("%s is ended: others were asked for since.", idle)
        serve.delete(f"{APPLICATION}-{idle}", _blocking=False)
        return True

    def _used(self, version: Version) -> str:
        name = engine_name(version)
        if name in self._started:
            self._started[name] = time.monotonic()
            self._started.move_to_end(name)
        return name

    def _start(self, name: str, version: Version) -> None:
        application = f"{APPLICATION}-{name}"
        try:
            try:
                handle = serve.get_app_handle(application)
            except RayServeException:
                handle = serve.run(deployment(self._endpoint, version), name=application, route_prefix=None)
        except Exception as error:
            log.error("The engine of %s did not start.", version.id, exc_info=error)
            return
        self._plain[name], self._started[name] = handle, time.monotonic()
        self._handles[name] = _streaming(handle)


def _class(endpoint: Endpoint, version: Version) -> Any:
    if labels_of(version):
        from serve.engine.classifier import Classifier

        return Classifier
    if endpoint.engine.type == "vllm":
        from serve.engine.vllm import VllmEngine

        return VllmEngine
    from serve.engine.engine import Engine

    return Engine


def _streaming(handle: Any) -> Any:
    return handle.options(stream=True)
