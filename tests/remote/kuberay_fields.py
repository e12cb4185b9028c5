"""The fields of KubeRay's custom resources (ray.io/v1, KubeRay 1.5) that our manifests may use, as a JSON schema.

Written from KubeRay's API reference. The CRDs themselves are several megabytes, most of it Kubernetes' pods, which
`kubernetes-validate` knows: what stands here is the part that is KubeRay's, closed, so that a misspelled field fails.
"""

from typing import Any


def closed(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
POD = {"type": "object"}  # checked by kubernetes-validate

AUTOSCALER = closed(
    idleTimeoutSeconds=WHOLE,
    version={"enum": ["v1", "v2"]},
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    image=TEXT,
    imagePullPolicy=TEXT,
    resources={"type": "object"},
)
HEAD = closed(
    ("rayStartParams", "template"),
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    rayStartParams=TEXTS,
    labels=TEXTS,
    resources=TEXTS,
    template=POD,
    enableIngress=FLAG,
)
WORKERS = closed(
    ("groupName", "rayStartParams", "template"),
    groupName=TEXT,
    replicas=WHOLE,
    minReplicas=WHOLE,
    maxReplicas=WHOLE,
    numOfHosts=WHOLE,
    idleTimeoutSeconds=WHOLE,
    rayStartParams=TEXTS,
    labels=TEXTS,
    resources=TEXTS,
    suspend=FLAG,
    template=POD,
)
CLUSTER = closed(
    ("headGroupSpec",),
    rayVersion=TEXT,
    authOptions=closed(mode={"enum": ["token", "disabled"]}),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
    suspend=FLAG,
)
JOB = closed(
    ("rayClusterSpec",),
    entrypoint=TEXT,
    entrypointResources=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    metadata=TEXTS,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=WHOLE,
    activeDeadlineSeconds=WHOLE,
    backoffLimit=WHOLE,
    suspend=FLAG,
    rayClusterSpec=CLUSTER,
)
SERVICE = closed(
    ("rayClusterConfig",),
    serveConfigV2=TEXT,
    rayClusterConfig=CLUSTER,
    upgradeStrategy=closed(type={"enum": ["NewCluster", "None"]}),
    excludeHeadPodFromServeSvc=FLAG,
)


def resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=closed(
            ("name",), name={"type": "string", "pattern": "^[a-z0-9-]{1,47}$"}, namespace=TEXT, labels=TEXTS
        ),
        spec=spec,
    )


FIELDS = {
    kind: resource(kind, spec) for kind, spec in (("RayCluster", CLUSTER), ("RayJob", JOB), ("RayService", SERVICE))
}
