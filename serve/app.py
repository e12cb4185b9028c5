"""From names to a running endpoint: `build` for Serve's own tools, `start` and `stop` for the command line.

    serve run serve.app:build names=support,sql        or, in a Serve config file: import_path: serve.app:build

Versions on the same base share one Engine deployment; a full model is its own base. Nothing else is exposed.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import re
import socket
import time
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ray import serve

from ftlib import registry
from ftlib.config.messages import explain
from ftlib.errors import FtlibError, InputError
from ftlib.registry import Version
from ftlib.runs import read_json
from serve.api import Address, Api, make_app
from serve.engine import Engine

NAME = "ftlib"  # of the Serve application
QUIET = {"enable_access_log": False, "log_level": "WARNING"}
ONGOING = 8  # requests inside one engine replica; one generates, the others are next
WAITING = 64  # requests that wait outside before a client hears 429


class Endpoint(BaseModel):
    """The arguments of `build`. No names means every name in the registry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: list[str] = Field(default_factory=list)  # "support", "support@3"; or one text with commas
    api_key: str | None = Field(default=None, repr=False)
    max_new_tokens_limit: int = Field(default=4096, ge=1)
    num_replicas: int = Field(default=1, ge=1)  # of each base
    num_cpus: float = Field(default=1, ge=0)  # of each replica
    num_gpus: float = Field(default=0, ge=0)

    @field_validator("names", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("api_key")
    @classmethod
    def _fits_in_a_header(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value):
            raise ValueError("use printable ASCII characters, without a space")
        return value


def build(args: dict[str, Any]) -> serve.Application:
    """The application that serves `args["names"]`. Raises InputError for arguments or names that are not there."""
    try:
        endpoint = Endpoint.model_validate(args)
    except ValidationError as error:
        raise InputError(explain(error, Endpoint, "serve")) from None
    resolved = {name: registry.resolve(name) for name in endpoint.names or registry.names()}
    if not resolved:
        raise InputError("The registry is empty: promote a trial first, with 'ftlib promote RUN --as NAME'.")
    for version in resolved.values():
        _check_writes(version)
    bases = group_by_base(list(resolved.values()))
    place = {version.id: number for number, versions in enumerate(bases) for version in versions}
    addresses = [Address(name, each.id, _created(each), place[each.id]) for name, each in resolved.items()]
    engines = [_engine(endpoint, f"Engine-{number}", versions) for number, versions in enumerate(bases)]
    # An answer being waited for holds its place here too: more room than all engines have, so that theirs fills first.
    room = len(engines) * (endpoint.num_replicas * ONGOING + WAITING) + 64
    api = serve.deployment(
        serve.ingress(make_app)(Api),
        name="Api",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=room,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config=QUIET,
    )
    return api.bind(addresses, endpoint.api_key, *engines)


def group_by_base(versions: Sequence[Version]) -> list[list[Version]]:
    """Versions that one loaded base can answer for, together; each version once."""
    groups: dict[str, dict[str, Version]] = {}
    for version in versions:
        groups.setdefault(_base_key(version), {})[version.id] = version
    return [list(group.values()) for group in groups.values()]


def start(
    names: Sequence[str], host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None, **options: Any
) -> str:
    """Starts the endpoint and returns its url once it answers; clients take `f"{url}/v1"` as their base url.

    `options` are `Endpoint`'s. Joins the Ray that is initialized, or starts one here. Raises InputError for wrong
    names or a port that is taken, and FtlibError when the endpoint cannot come up.
    """
    if api_key is None and not _is_loopback(host):
        raise InputError(f"--host {host} is reachable from other machines: give an --api-key, or bind to 127.0.0.1.")
    application = build({"names": list(names), "api_key": api_key, **options})
    _check_port(host, port)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    if serve.status().proxies:
        raise FtlibError("Ray Serve already runs on this cluster: stop it first, with 'serve shutdown'.")
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=QUIET)
    try:
        serve.run(application, name=NAME, route_prefix="/")
        return _answering(host, port)
    except RuntimeError as error:
        reason = _reason(_deployment_messages() or str(error))
        stop()
        raise FtlibError(f"The endpoint did not start: {reason}") from error
    except BaseException:
        stop()
        raise


def stop() -> None:
    """Ends the endpoint and Ray Serve with it. Ray itself stays."""
    serve.shutdown()


def _engine(endpoint: Endpoint, name: str, versions: Sequence[Version]) -> serve.Application:
    deployment = serve.deployment(
        Engine,
        name=name,
        num_replicas=endpoint.num_replicas,
        ray_actor_options={"num_cpus": endpoint.num_cpus, "num_gpus": endpoint.num_gpus},
        max_ongoing_requests=ONGOING,
        max_queued_requests=WAITING,
        max_constructor_retry_count=1,  # a base that changed stays changed
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=5,
        logging_config=QUIET,
    )
    return deployment.bind(list(versions), endpoint.max_new_tokens_limit, max(1, math.floor(endpoint.num_cpus)))


def _base_key(version: Version) -> str:
    """Equal for versions that one loaded base can answer for: the same weights, read in the same way.

    Adapters side by side are LoRA (PEFT keeps others apart by type, and by seed or size within a type): any other
    adapter has a base of its own.
    """
    if version.kind == "model" or _peft_type(version) != "LORA":
        return version.id
    manifest = version.manifest
    loading = {
        key: value for key, value in manifest["experiment"]["model"].items() if key not in ("name_or_path", "tokenizer")
    }
    return json.dumps([manifest["base"], loading], sort_keys=True)


def _peft_type(version: Version) -> str:
    return str((read_json(version.weights / "adapter_config.json") or {}).get("peft_type"))


def _check_writes(version: Version) -> None:
    """Raises InputError for a version that scores or sorts texts: the endpoint completes them."""
    adapter = read_json(version.weights / "adapter_config.json") or {}
    model = read_json(version.weights / "config.json") or {}
    heads = [adapter.get("task_type") or "", *(model.get("architectures") or [])]
    if any(head == "SEQ_CLS" or head.endswith("ForSequenceClassification") for head in heads):
        raise InputError(f"{version.id} sorts or scores texts and writes none: the endpoint serves models that write.")


def _created(version: Version) -> int:
    return int(datetime.fromisoformat(version.manifest["promoted"]).timestamp())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    application = serve.status().applications.get(NAME)
    return "\n".join(each.message for each in application.deployments.values()) if application else ""


def _reason(message: str) -> str:
    """Our own sentence out of a replica's traceback, or the traceback's last line."""
    ours = re.findall(r"ftlib\.errors\.\w+: (.+)", message)
    return ours[-1] if ours else (message.strip().splitlines() or ["no reason given."])[-1]
