"""What tests create on a cluster: the manifests of deploy/, volumes, and pods that run to their end."""

from pathlib import Path
from typing import Any

import yaml
from kubernetes_cluster import Cluster
from repository import REPOSITORY
from waiting import wait_until

DEPLOY = REPOSITORY / "deploy"
IMAGE = "localhost/autoencoder:serving"
"""The target `cpu` with another entry point, so it can run pipelines as well."""

Manifest = dict[str, Any]


def manifests(name: str) -> list[Manifest]:
    """The documents of a file below deploy/."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def deployment_of(documents: list[Manifest], image: str) -> tuple[Manifest, Manifest]:
    """(the Deployment, its container), with an image of this machine, and requests that fit several times on it."""
    [deployment] = [document for document in documents if document["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": "Never"}
    container["resources"]["requests"]["cpu"] = "100m"
    return deployment, container


def volume(cluster: Cluster, name: str) -> Path:
    """A volume on the node for the claim `name`; Kubernetes sets its group to a pod's fsGroup, its owner is root."""
    folder = cluster.folder / "volumes" / name
    folder.mkdir(parents=True)
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}]}]
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "50Gi"},
                "accessModes": ["ReadWriteMany"],
                "local": {"path": str(folder)},
                "claimRef": {"namespace": "default", "name": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            },
        }
    )
    return folder


def ready_pods(cluster: Cluster, selector: str) -> list[Manifest]:
    """Pods that receive requests."""
    return [
        pod
        for pod in cluster.get("pods", "-l", selector)["items"]
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        and "deletionTimestamp" not in pod["metadata"]
    ]


def start_pod(cluster: Cluster, name: str, image: str, command: list[str], **fields: Any) -> None:
    """A pod that runs a command once. `fields`: further ones of the pod, and as `container` of its container."""
    own = {"name": "main", "image": image, "command": command, "imagePullPolicy": "Never"}
    spec = {"restartPolicy": "Never", "containers": [own | fields.pop("container", {})], **fields}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def end_of_pod(cluster: Cluster, name: str, timeout_s: float = 240) -> Manifest:
    """Wait for a pod's end; its status, with its log as `log`."""

    def status() -> Manifest:
        return dict(cluster.get("pod", name)["status"])

    wait_until(lambda: status()["phase"] in ("Succeeded", "Failed"), timeout_s)
    return {**status(), "log": cluster.kubectl("logs", name, check=False)}


def process_of(cluster: Cluster, pod: Manifest) -> str:
    """The number, on this machine, of the process that a pod's only container runs."""
    [status] = pod["status"]["containerStatuses"]
    container = status["containerID"].removeprefix("containerd://")
    [process] = [line.split()[1] for line in cluster.ctr("tasks", "list").splitlines() if line.startswith(container)]
    return process
