"""The manifests under deploy/kuberay are what `make kuberay` makes, and fit KubeRay's and Kubernetes' fields."""

import copy
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ftlib.errors import ConfigError
from ftlib.remote.kuberay import manifests, write_manifests
from ftlib.remote.launcher import ClusterFile
from serve.front.app import Endpoint
from tests.remote.conftest import ROOT
from tests.remote.kuberay_fields import FIELDS

MADE = ROOT / "deploy" / "kuberay"
NAMES = ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml")


def pods(tree: Any) -> Iterator[dict[str, Any]]:
    """Every pod template below a manifest."""
    if isinstance(tree, dict):
        if "template" in tree:
            yield tree["template"]
        for value in tree.values():
            yield from pods(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from pods(value)


def check(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, FIELDS[manifest["kind"]])
    found = list(pods(manifest))
    assert len(found) == 4
    for template in found:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template}
        kubernetes_validate.validate(pod, "1.33", strict=True)


def test_what_is_checked_in_is_what_is_made(tmp_path: Path) -> None:
    write_manifests(ClusterFile.load(ROOT / "cluster.yaml"), tmp_path)
    for name in NAMES:
        assert (MADE / name).read_text() == (tmp_path / name).read_text(), "run `make kuberay`"


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_fits_the_fields(name: str) -> None:
    check(yaml.safe_load((MADE / name).read_text()))


def test_a_misspelled_field_does_not_fit() -> None:
    manifest = yaml.safe_load((MADE / "raycluster.yaml").read_text())
    wrong = copy.deepcopy(manifest)
    wrong["spec"]["workerGroupSpecs"][0]["maxreplicas"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxreplicas"):
        check(wrong)
    wrong = copy.deepcopy(manifest)
    wrong["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image_pull"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        check(wrong)


def test_every_cluster_asks_for_a_token_and_drivers_stay_off_spot() -> None:
    for name in NAMES:
        spec = yaml.safe_load((MADE / name).read_text())["spec"]
        cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
        assert "karpenter.sh/capacity-type" in groups["gpu-spot"]["template"]["spec"]["nodeSelector"]
        # what a shell makes of the option is what `ray start` reads as JSON
        (resources,) = shlex.split(groups["gpu-spot"]["rayStartParams"]["resources"])
        assert json.loads(resources) == {"spot": 1}
        (resources,) = shlex.split(cluster["headGroupSpec"]["rayStartParams"]["resources"])
        assert json.loads(resources) == {"driver": 2}


def test_the_endpoint_is_served_by_its_import_path() -> None:
    config = yaml.safe_load(yaml.safe_load((MADE / "rayservice.yaml").read_text())["spec"]["serveConfigV2"])
    from ray.serve.schema import ServeDeploySchema

    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "serve.front.app:build"
    assert "key" not in json.dumps(config).lower()
    Endpoint.model_validate(application.args)


def test_a_node_type_without_a_pod_is_said() -> None:
    file = ClusterFile.load(ROOT / "cluster.gcp.yaml")
    with pytest.raises(ConfigError, match=r"cluster.gcp.yaml: metadata: head lacks 'pods'"):
        manifests(file)
