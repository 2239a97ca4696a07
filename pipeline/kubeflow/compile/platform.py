"""Creates the package's second document: Kubernetes settings such as node selectors, volumes and secrets.

Field names are those of kfp-kubernetes' kubernetes_executor_config.proto. The driver does not read all of them:
`enabledSharedMemory` has no effect. Of the two fields for the names of claims and secrets, this uses the older one,
which every Kubeflow Pipelines 2 release reads.
"""

from typing import Any

from pipeline.configuration.configuration import Configuration
from pipeline.configuration.kubeflow import PodSettings, TrainingJobSettings, Volume
from pipeline.kubeflow.compile.finish import TRAINER
from pipeline.kubeflow.names import SCRATCH_FOLDER, SHARED_MEMORY_FOLDER, Message


def platform_spec(spec: Message, configuration: Configuration) -> Message:
    """One Kubernetes section per executor of `spec`; {} if the configuration sets none of these fields."""
    sections = {}
    for name, component in spec["components"].items():
        section = {**_for_every_pod(configuration, name), **_for_pod(configuration.kubeflow.pod(name))}
        if section:
            sections[component["executorLabel"]] = section
    if not sections:
        return {}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": sections}}}}


def _for_every_pod(configuration: Configuration, name: str) -> dict[str, Any]:
    settings = configuration.kubeflow
    volumes: list[Volume | TrainingJobSettings] = [*settings.volumes]
    if settings.tfjob and name == TRAINER:
        volumes.append(settings.tfjob)
    section: dict[str, Any] = {
        "pvcMount": [{"constant": v.claim, "mountPath": v.mount_path} for v in volumes],
        "secretAsEnv": [
            {"secretName": s.secret, "keyToEnv": [{"secretKey": s.key, "envVar": s.variable}]}
            for s in settings.secret_variables
        ],
        "secretAsVolume": [{"secretName": s.secret, "mountPath": s.mount_path} for s in settings.secret_folders],
    }
    return {field: value for field, value in section.items() if value}


def _for_pod(pod: PodSettings) -> dict[str, Any]:
    section: dict[str, Any] = {}
    if pod.node_selector:
        section["nodeSelector"] = {"labels": dict(pod.node_selector)}
    if pod.tolerations:
        section["tolerations"] = [toleration.manifest() for toleration in pod.tolerations]
    # An emptyDir is writable for every user; a volume of a storage class would belong to root.
    empty = []
    if pod.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": pod.shared_memory}
        empty.append({"volumeName": "shared-memory", "mountPath": SHARED_MEMORY_FOLDER, **memory})
    if pod.scratch:
        empty.append({"volumeName": "scratch", "mountPath": SCRATCH_FOLDER, "sizeLimit": pod.scratch})
    if empty:
        section["emptyDirMounts"] = empty
    return section
