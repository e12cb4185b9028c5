"""From names to a running endpoint: `build` for Serve's own tools, `start` and `stop` for the command line.

    serve run serve.front.app:build names=support,sql
    import_path: serve.front.app:build                       in a Serve config file

Versions on the same base share one Engine deployment; a full model is its own base. Nothing else is exposed.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from ftlib.cluster.nodes import NICENESS
from ftlib.cluster.session import start_ray
from ftlib.config.messages import explain
from ftlib.errors import FtlibError, InputError
from ftlib.files.home import home
from ftlib.files.hosts import is_loopback
from ftlib.registry import backend, registry
from ftlib.registry.version import Version
from serve.engine.options import APPLICATION, Endpoint
from serve.front.api import Api
from serve.front.catalog import engine_name
from serve.front.connection import HEADERS, HOOK
from serve.front.engines import QUIET, check, deployment
from serve.front.http import make_app

log = logging.getLogger("ray.serve")
os.environ.setdefault(*NICENESS)
os.environ.setdefault(*HOOK)  # here, since Serve's proxy has the environment in which Ray was started
HOOKED = "=".join(HOOK)
DRAIN = 30.0  # seconds in which what was begun may end, when the endpoint is told to
SETTLE = 0.5  # seconds in which the last bytes of an answer reach the client
ROOM = 100_000  # requests inside the HTTP side: the engines' queues say no, and nothing before them


def build(args: dict[str, Any]) -> serve.Application:
    """The application that serves `args["names"]`. Raises InputError for arguments or names that are not there."""
    endpoint = parse(args)
    engines: dict[str, serve.Application] = {}
    with registry.trusting(endpoint.trust):
        found = _versions(endpoint)
    for version in found:
        name = engine_name(version)
        if name not in engines:
            engines[name] = deployment(endpoint, version)
    api = serve.deployment(
        serve.ingress(make_app)(Api),
        name="Api",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=ROOM,
        health_check_period_s=1,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=endpoint.engine.deadline,  # what it has begun ends by then
        logging_config=QUIET,
    )
    return api.bind(endpoint, str(home()), backend.given(), engines)


def parse(args: dict[str, Any]) -> Endpoint:
    """The arguments as an Endpoint. Raises InputError, with the path of what is wrong and the nearest name."""
    try:
        return Endpoint.model_validate(args)
    except ValidationError as error:
        raise InputError(explain(error, Endpoint, "serve")) from None


def options(texts: Sequence[str]) -> dict[str, Any]:
    """`engine.max_rows=64` and the like as arguments. Raises InputError for what is no KEY=VALUE."""
    found: dict[str, Any] = {}
    for text in texts:
        path, _, value = text.partition("=")
        *parents, key = path.split(".")
        tree = found
        for parent in parents:
            tree = tree.setdefault(parent, {})
            if not isinstance(tree, dict):
                raise InputError(f"{text}: '{parent}' was given a value already.")
        try:
            tree[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"{text}: the value is no YAML.") from None
    return found


def start(names: Sequence[str], host: str = "127.0.0.1", port: int = 8000, **options: Any) -> str:
    """Starts the endpoint and returns its url once it answers; clients take `f"{url}/v1"` as their base url.

    `options` are `Endpoint`'s. Joins the Ray that is initialized or that RAY_ADDRESS names, or starts one here. Raises
    InputError for wrong names or a port that is taken, and FtlibError when the endpoint cannot come up.
    """
    arguments = {"names": list(names), **options}
    if not parse(arguments).guarded and not is_loopback(host):
        raise InputError(f"--host {host} is reachable from other machines: give an --api-key, or bind to 127.0.0.1.")
    application = build(arguments)
    _check_port(host, port)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    start_ray()
    if serve.status().proxies:
        raise FtlibError("Ray Serve already runs on this cluster: stop it first, with 'serve shutdown'.")
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=QUIET)
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
        return _answering(host, port)
    except RuntimeError as error:
        reason = _reason(_deployment_messages() or str(error))
        stop()
        raise FtlibError(f"The endpoint did not start: {reason}") from error
    except BaseException:
        stop()
        raise


def drain(seconds: float = DRAIN) -> int:
    """Has the endpoint take nothing new, and waits up to `seconds` for the answers that were begun. Returns how many
    are left, which `stop` cuts."""
    until, left = time.monotonic() + seconds, 0
    try:
        api = serve.get_app_handle(APPLICATION)
        while (left := int(api.leave.remote().result(timeout_s=seconds))) and time.monotonic() < until:
            time.sleep(0.1)
    except (RayError, RayServeException, TimeoutError) as error:  # a dead HTTP side has begun nothing
        log.warning("The HTTP side does not say what it has begun: %s", error)
    time.sleep(SETTLE)
    return left


def bounded(url: str) -> bool:
    """Whether the headers of a request have a bound there: not where Ray was started without the proxy's hook."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/health", headers={"x": "x" * 2 * HEADERS})):
            return False
    except urllib.error.HTTPError as error:
        return error.code == 431
    except OSError:
        return True


def stop() -> None:
    """Ends the endpoint and Ray Serve with it, at once: `drain` comes before. Ray itself stays."""
    serve.shutdown()


def _versions(endpoint: Endpoint) -> list[Version]:
    """What the names mean now, canaries too. A name that was asked for must be fit to serve; of all names, those that
    are will do."""
    found: list[Version] = []
    for name in endpoint.names or registry.names():
        try:
            meant = _meant(name)
            for version in meant:
                check(endpoint, version)
        except FtlibError as error:
            if endpoint.names:
                raise
            log.warning("%s is not served: %s", name, error)
        else:
            found += meant
    if not found:
        raise InputError("The registry is empty: promote a trial first, with 'ftlib promote RUN --as NAME'.")
    return found


def _meant(name: str) -> list[Version]:
    if "@" in name:
        return [registry.resolve(name)]
    alias = registry.alias(name)
    return [alias.version, *([alias.canary] if alias.canary else [])]


def _check_port(host: str, port: int) -> None:
    """Raises InputError when the address cannot be bound: Serve itself would only log that."""
    if not 0 < port < 2**16:
        raise InputError(f"--port {port} is no port: choose one from 1 to 65535.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"--port {port} on {host} cannot be used ({error.strerror}): choose another --port.") from None


def _answering(host: str, port: int, patience: float = 30) -> str:
    """The url, once /health answers. Raises FtlibError after `patience` seconds without."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return url
        except OSError:
            time.sleep(0.1)
    raise FtlibError(
        f"{url}/health did not answer within {patience:.0f} s: Ray Serve's log in /tmp/ray/session_latest says why."
    )


def _deployment_messages() -> str:
    """What Serve knows of each deployment, tracebacks of failed replicas included."""
    application = serve.status().applications.get(APPLICATION)
    return "\n".join(status.message for status in application.deployments.values()) if application else ""


def _reason(message: str) -> str:
    """Our own sentence out of a replica's traceback, or the traceback's last line."""
    ours = re.findall(r"ftlib\.errors\.\w+: (.+)", message)
    return ours[-1] if ours else (message.strip().splitlines() or ["no reason given."])[-1]
