"""The manifest of a TFJob: pods that Kubeflow's Training Operator (kubeflow.org/v1) starts to train together."""

from typing import Any

from pipeline.configuration.configuration import Configuration
from pipeline.configuration.kubeflow import WORKER_POD, PodSettings
from pipeline.kubeflow.names import SCRATCH_FOLDER, SHARED_MEMORY_FOLDER, USER_ID

GROUP, VERSION, PLURAL, KIND = "kubeflow.org", "v1", "tfjobs", "TFJob"
CONTAINER = "tensorflow"
"""The operator sets TF_CONFIG only in the container of this name."""
_KEPT_S = 3600
"""How long the operator keeps a finished job that was not deleted."""

Manifest = dict[str, Any]
SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Of each pod: without `fsGroup`, a new volume belongs to root."""


def training_job(configuration: Configuration, image: str) -> Manifest:
    """The job of `configuration.kubeflow.tfjob`, without its name and the file that describes the training."""
    from trainer import worker as worker_module  # loads TensorFlow

    job, pod = configuration.kubeflow.tfjob, configuration.kubeflow.pod(WORKER_POD)
    assert job is not None
    variables = dict(configuration.kubeflow.variables)
    volumes: dict[str, tuple[str, Manifest]] = {
        "training": (job.mount_path, {"persistentVolumeClaim": {"claimName": job.claim}})
    }
    if pod.shared_memory:
        volumes["shared-memory"] = (
            SHARED_MEMORY_FOLDER,
            {"emptyDir": {"medium": "Memory", "sizeLimit": pod.shared_memory}},
        )
    if pod.scratch:
        volumes["scratch"] = (SCRATCH_FOLDER, {"emptyDir": {"sizeLimit": pod.scratch}})
        variables["TMPDIR"] = SCRATCH_FOLDER
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["python", "-m", worker_module.__name__],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "resources": _resources(pod, {configuration.kubeflow.gpu_resource: job.gpus_per_worker}),
        "volumeMounts": [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()],
    }
    template = {
        # A service mesh's proxy would come between the workers, and would never exit.
        "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": SECURITY,
            "containers": [container],
            "volumes": [{"name": name, **source} for name, (_, source) in volumes.items()],
            "nodeSelector": dict(pod.node_selector or {}),
            "tolerations": [toleration.manifest() for toleration in pod.tolerations or ()],
        },
    }
    # A lost worker ends the job, since the others cannot continue without it; the pipeline's step restarts it from the
    # checkpoint. Pods stay until the job is deleted, so that their logs can be read to the end.
    worker = {"replicas": job.workers, "restartPolicy": "Never", "template": template}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"labels": {"app.kubernetes.io/name": configuration.name}},
        "spec": {
            "runPolicy": {"cleanPodPolicy": "None", "ttlSecondsAfterFinished": _KEPT_S},
            "tfReplicaSpecs": {"Worker": worker},
        },
    }


def _resources(pod: PodSettings, extended: dict[str, int]) -> Manifest:
    """Requests and limits; for extended resources such as GPUs, Kubernetes uses the limit for both."""
    requests = {"cpu": _number(pod.cpu), "memory": _number(pod.memory_gb, "G")}
    limits = {"cpu": _number(pod.cpu_limit), "memory": _number(pod.memory_limit_gb, "G")}
    limits |= {name: str(count) if count else None for name, count in extended.items()}
    return {
        kind: {name: value for name, value in asked.items() if value}
        for kind, asked in (("requests", requests), ("limits", limits))
    }


def _number(value: float | None, unit: str = "") -> str | None:
    return None if value is None else f"{value:g}{unit}"
