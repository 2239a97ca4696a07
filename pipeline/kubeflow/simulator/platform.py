"""Simulates what Kubeflow's driver makes of the package's second document: a patch of each task's pod.

Follows extendPodSpecPatch in backend/src/v2/driver/k8s.go of Kubeflow Pipelines 2.17. On a cluster, fields that the
driver does not read have no effect; here, they are refused.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.kubeflow.names import Message
from pipeline.kubeflow.specification import RefusedError

_READ: Mapping[str, frozenset[str]] = {
    "pvcMount": frozenset({"constant", "mountPath"}),
    "secretAsEnv": frozenset({"secretName", "keyToEnv"}),
    "secretAsVolume": frozenset({"secretName", "mountPath"}),
    "nodeSelector": frozenset({"labels"}),
    "tolerations": frozenset({"key", "operator", "value", "effect", "tolerationSeconds"}),
    "emptyDirMounts": frozenset({"volumeName", "mountPath", "medium", "sizeLimit"}),
}
"""Field -> those of its fields that the driver reads and this package writes."""


def pod_patches(platform: Message) -> dict[str, Message]:
    """Executor -> patch of its pod, as Kubernetes' PodSpec; raises RefusedError for a field that the driver ignores."""
    sections = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    return {executor: _patch(executor, section) for executor, section in sections.items()}


def _patch(executor: str, section: Message) -> Message:
    _check_fields(executor, section)
    volumes: list[Message] = []
    mounts: list[Message] = []

    def mount(name: str, path: str, source: Message) -> None:
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": path})

    for claim in section.get("pvcMount", []):
        source = {"persistentVolumeClaim": {"claimName": claim["constant"]}}
        mount(claim["constant"], claim["mountPath"], source)
    for secret in section.get("secretAsVolume", []):
        mount(secret["secretName"], secret["mountPath"], {"secret": {"secretName": secret["secretName"]}})
    for empty in section.get("emptyDirMounts", []):
        options = {field: empty[field] for field in ("medium", "sizeLimit") if field in empty}
        mount(empty["volumeName"], empty["mountPath"], {"emptyDir": options})
    container = {"name": "main", "volumeMounts": mounts, "env": _secret_variables(section)}
    patch: Message = {"containers": [container], "volumes": volumes}
    if "nodeSelector" in section:
        patch["nodeSelector"] = section["nodeSelector"]["labels"]
    if "tolerations" in section:
        patch["tolerations"] = section["tolerations"]
    return patch


def _secret_variables(section: Message) -> list[Message]:
    return [
        {
            "name": key["envVar"],
            "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": key["secretKey"]}},
        }
        for secret in section.get("secretAsEnv", [])
        for key in secret["keyToEnv"]
    ]


def _check_fields(executor: str, section: Message) -> None:
    for field, value in section.items():
        items: list[Any] = value if isinstance(value, list) else [value]
        ignored = [field] if field not in _READ else sorted({key for item in items for key in item} - _READ[field])
        if ignored:
            raise RefusedError(
                f"{executor}: Kubeflow's driver does not read {', '.join(ignored)} of the second document"
            )
