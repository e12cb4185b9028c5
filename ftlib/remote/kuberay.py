"""KubeRay manifests out of a cluster file: the same node types, as pods. `python -m ftlib.remote.kuberay FILE FOLDER`
(`make kuberay`) writes them; tests hold that what is checked in is what this makes, and that it fits KubeRay's fields.

    raycluster.yaml   a cluster that stays, for `ftlib submit`
    rayjob.yaml       one sweep: a cluster that comes for it, and goes with it
    rayservice.yaml   the endpoint, by Serve's import path serve.front.app:build

Token authentication is the operator's (`authOptions`): it makes the secret and gives it to every pod.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from ftlib.errors import ConfigError
from ftlib.files.atomic import write_text
from ftlib.remote.launcher import ClusterFile, NodeType

RAY = "2.60.0"
SPOT = {"karpenter.sh/capacity-type": "spot"}  # on GKE: cloud.google.com/gke-spot: "true"
SECRETS = "ftlib-secrets"  # variables for every pod: WANDB_API_KEY, HF_TOKEN
HOME = "/home/ray/.ftlib"
VOLUMES = [{"name": "home", "persistentVolumeClaim": {"claimName": "ftlib-home"}}]
MOUNTS = [{"name": "home", "mountPath": HOME}]
HEADER = "# Made from {} by `make kuberay`: change that file, not this one.\n"
EXPERIMENT = "/experiment/experiment.yaml"  # from the config map `ftlib-experiment`


def manifests(file: ClusterFile) -> dict[str, dict[str, Any]]:
    """File name -> manifest. Raises ConfigError where the cluster file lacks a pod's memory or image."""
    name = file.tree["cluster_name"]
    cluster = _cluster(file)
    job = _cluster(file, extra=[{"name": "experiment", "configMap": {"name": "ftlib-experiment"}}])
    return {
        "raycluster.yaml": _object("RayCluster", name, cluster),
        "rayjob.yaml": _object(
            "RayJob",
            f"{name}-sweep",
            {
                "entrypoint": f"ftlib sweep {EXPERIMENT}",
                "entrypointResources": '{"driver": 1}',
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": 3600,
                "backoffLimit": 0,
                "rayClusterSpec": job,
            },
        ),
        "rayservice.yaml": _object(
            "RayService", f"{name}-endpoint", {"serveConfigV2": _serve(), "rayClusterConfig": cluster}
        ),
    }


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _serve() -> str:
    """Serve's own configuration: every name of the registry."""
    application = {"name": "ftlib", "import_path": "serve.front.app:build", "route_prefix": "/", "args": {}}
    return yaml.safe_dump({"http_options": {"host": "0.0.0.0", "port": 8000}, "applications": [application]})


def _cluster(file: ClusterFile, extra: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    head, *workers = file.node_types
    head_pod = _pod(file, head, "ray-head", extra or [])
    return {
        "rayVersion": RAY,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"idleTimeoutSeconds": int(file.tree["idle_timeout_minutes"] * 60), "version": "v2"},
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": _start(head),
            "template": head_pod,
        },
        "workerGroupSpecs": [
            {
                "groupName": node.name,
                "replicas": node.least,
                "minReplicas": node.least,
                "maxReplicas": node.most,
                "rayStartParams": _start(node),
                "template": _pod(file, node, "ray-worker", extra or []),
            }
            for node in workers
        ],
    }


def _start(node: NodeType) -> dict[str, str]:
    """`ray start`'s options. Custom resources are JSON inside a shell word."""
    custom = {name: amount for name, amount in node.resources.items() if name not in ("CPU", "GPU")}
    text = "{" + ", ".join(f'\\"{name}\\": {amount:g}' for name, amount in custom.items()) + "}"
    start = {
        "num-cpus": f"{node.resources.get('CPU', 0):g}",
        "labels": f"market={'spot' if node.spot else 'on-demand'}",
    }
    return start | ({"resources": f'"{text}"'} if custom else {})


def _pod(file: ClusterFile, node: NodeType, container: str, extra: list[dict[str, Any]]) -> dict[str, Any]:
    metadata = file.tree.get("metadata", {})
    try:
        room, images = metadata["pods"][node.name], metadata["images"]
        amounts = {"cpu": str(room["cpu"]), "memory": room["memory"]}
    except KeyError as error:
        raise ConfigError(f"{file.path.name}: metadata: {node.name} lacks {error}, which a pod is made of.") from None
    if node.resources.get("GPU"):
        amounts["nvidia.com/gpu"] = f"{node.resources['GPU']:g}"
    spec: dict[str, Any] = {
        "restartPolicy": "Never",  # Ray's autoscaler, v2, replaces pods itself
        "containers": [
            {
                "name": container,
                "image": images.get(node.name, images["default"]),
                "resources": {"requests": amounts, "limits": amounts},
                "env": [{"name": "FTLIB_HOME", "value": HOME}],
                "envFrom": [{"secretRef": {"name": SECRETS, "optional": True}}],
                "volumeMounts": [
                    *MOUNTS,
                    *({"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in extra),
                ],
            }
        ],
        "volumes": [*VOLUMES, *extra],
    }
    if container == "ray-head":
        spec["containers"][0]["ports"] = [
            {"name": name, "containerPort": port}
            for name, port in (("gcs", 6379), ("dashboard", 8265), ("serve", 8000))
        ]
    if node.spot:
        spec["nodeSelector"] = dict(SPOT)
        spec["terminationGracePeriodSeconds"] = 120  # what a cloud's warning leaves to write a checkpoint
    return {"spec": spec}


def write_manifests(file: ClusterFile, folder: Path) -> None:
    """Writes them, with the name of their source."""
    for name, manifest in manifests(file).items():
        write_text(folder / name, HEADER.format(file.path.name) + _text(manifest))


def _text(manifest: dict[str, Any]) -> str:
    class Plain(yaml.SafeDumper):
        """Without anchors: a manifest is read in parts."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(manifest, Dumper=Plain, sort_keys=False, width=110)


def main() -> None:
    """`python -m ftlib.remote.kuberay FILE FOLDER`."""
    from ftlib.driver.process import guarded

    source, folder = sys.argv[1:]
    guarded(lambda: write_manifests(ClusterFile.load(source), Path(folder)), debug=False)


if __name__ == "__main__":
    main()
