"""The config that ships for `serve deploy`, and a deploy over a running endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

import serve as package
from ftlib.errors import InputError
from ftlib.registry import drift, monitor, profile, registry
from serve.engine import template_process, templates
from serve.engine.options import APPLICATION, Endpoint, ReplicaOptions
from serve.front import api, app, connection, logs
from serve.front.engines import deployment

from ..conftest import ROOT
from .conftest import ENGINE, KEY, World
from .test_life import traffic, until

CONFIG = Path(package.__file__).with_name("config.yaml")


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return loaded


def test_the_config_is_one_that_serve_takes(config: dict[str, Any]) -> None:
    taken = ServeDeploySchema.model_validate(config)
    assert set(config["http_options"]) <= set(HTTPOptionsSchema.model_fields)  # Serve lets a misspelt one pass
    (application,) = taken.applications
    assert set(config["applications"][0]) <= set(ServeApplicationSchema.model_fields)
    assert (application.name, application.import_path) == (APPLICATION, "serve.front.app:build")
    assert taken.http_options.host == "127.0.0.1"


def test_its_arguments_are_the_defaults_that_it_says(config: dict[str, Any]) -> None:
    (application,) = config["applications"]
    endpoint = app.parse(application["args"])
    assert endpoint.guarded
    assert endpoint.engine == Endpoint().engine
    assert (endpoint.logs, endpoint.max_body) == (Endpoint().logs, Endpoint().max_body)
    assert config["http_options"]["request_timeout_s"] > endpoint.engine.deadline
    application["args"]["engine"]["max_row"] = 1
    with pytest.raises(InputError, match=r"engine\.max_row.*max_rows"):
        app.parse(application["args"])


def test_the_numbers_of_the_documentation_are_those_of_the_code() -> None:
    page = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    endpoint, engine = Endpoint(), Endpoint().engine
    numbers = [
        f"one of `engine.max_adapters` slots ({engine.max_adapters})",
        f"`engine.max_rows` ({engine.max_rows}) answers at once",
        f"`engine.max_waiting` ({engine.max_waiting}) wait",
        f"`engine.deadline` seconds ({engine.deadline:g})",
        f"`max_extra_engines` ({endpoint.max_extra_engines})",
        f"for up to {app.DRAIN:g} s",
        f"({endpoint.max_body:,}), and seconds in which it has to arrive ({endpoint.body_seconds:g})",
        f"{connection.HEADERS // 1024} KiB, {connection.COUNT} of them, {connection.SECONDS:g} s",
        f"{connection.STALLED:g} s in which the client reads nothing",
        f"{templates.SECONDS:g} s, {template_process.MEMORY // 2**20} MiB, {templates.MOST // 10**6} million",
        f"{logs.MAX_BYTES // 2**20} MiB a file",
        f"up to {logs.LONGEST:,} characters",
        f"up to {profile.ROWS:,} of the run's",
        *[f"chance + {allowed}" for allowed in monitor.ALLOWED.values()],
        f"two standard errors | {monitor.LESS_SURE} |",
        f"share of 5xx | {monitor.FAILING} |",
        f"Below {monitor.ENOUGH} samples",
        f"for {drift.SIZES[0]} to {drift.SIZES[-1]:,} texts",
    ]
    assert [number for number in numbers if number not in page] == []
    # "once a second", "for a minute", "four full ones", "ten draws"
    assert (api.POLL, templates.QUARANTINE, logs.KEEP, drift.DRAWS) == (1, 60, 4, 10)


def test_replicas_are_added_where_there_may_be_more(promoted: None) -> None:
    def made(low: int, high: int) -> Any:
        endpoint = Endpoint(replicas=ReplicaOptions(min=low, max=high))
        return deployment(endpoint, registry.resolve("one"))._bound_deployment._deployment_config

    load = made(1, 4).autoscaling_config
    assert (load.min_replicas, load.max_replicas, load.target_ongoing_requests) == (1, 4, 32)
    assert made(2, 2).autoscaling_config is None
    assert made(2, 2).num_replicas == 2
    assert made(2, 2).graceful_shutdown_timeout_s == Endpoint().engine.deadline  # to end what they have begun


def test_a_deploy_over_a_running_endpoint_drops_no_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `serve deploy` does with a changed file: a new HTTP side, while the old one ends what it has begun."""
    monkeypatch.setenv("FTLIB_HOME", str(world.home))
    # The engines as they are: a second one of each would not have room on two cores.
    now = {"names": list(world.served), "api_key": KEY, "replicas": ENGINE, "logs": {"sample": 1.0}, "base": True}
    now["keys"] = str(world.home / "keys.json")
    long = world.client().completions.create(
        model="support", prompt="x", max_tokens=2000, temperature=0, stream=True, timeout=120
    )
    next(iter(long))
    with traffic(world, "support", clients=4) as (versions, failures):
        until(lambda: sum(versions.values()) > 5)
        serve.run(
            app.build({**now, "logs": {"sample": 1.0, "redact": ["changed"]}}), name=APPLICATION, route_prefix="/"
        )
        seen = sum(versions.values())
        until(lambda: sum(versions.values()) > seen + 20)
    assert failures == []
    assert list(long)[-1].choices[0].finish_reason == "length"
