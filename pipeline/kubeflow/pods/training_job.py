"""Creates a TFJob, prints its pods' logs until it ends, and deletes it."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config  # type: ignore[import-untyped]
from kubernetes.client.exceptions import ApiException  # type: ignore[import-untyped]

from pipeline.kubeflow.tfjob import CONTAINER, GROUP, PLURAL, VERSION, Manifest
from runtime.errors import UserError

JOB_LABEL = "training.kubeflow.org/job-name"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POLL_S = 2.0
_LAST_LINES_S = 30.0
_RETRIES = urllib3.Retry(total=10, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))
"""Long enough for an API server to restart, which takes about a minute."""
_FINISHED_PHASES = ("Succeeded", "Failed")


class TrainingJobError(UserError):
    """The job failed, was deleted or could not be created."""


def run_training_job(manifest: Manifest, environment: Mapping[str, str]) -> None:
    """Create the job, print its pods' logs until it ends, and always delete it; raises TrainingJobError if it fails.

    The job runs in this pod's namespace or, outside a cluster, in that of kubectl's current context. If the pod that
    `environment` names is deleted first, Kubernetes deletes the job with it.
    """
    name = manifest["metadata"]["name"]
    api, namespace = _connect(environment)
    jobs, pods = client.CustomObjectsApi(api), client.CoreV1Api(api)
    place = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    owned = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": _owner(environment)}}
    try:
        _create(jobs, pods, place, owned)
        try:
            print(f"TFJob {namespace}/{name} created", flush=True)
            with _termination_as_exception():
                _follow(jobs, pods, place, name)
        finally:
            _delete(jobs, place, name)
    except ApiException as error:
        raise TrainingJobError(f"TFJob {namespace}/{name}: Kubernetes answered {_reason(error)}") from None


def _connect(environment: Mapping[str, str]) -> tuple[Any, str]:
    """(API client, namespace)."""
    settings = client.Configuration()
    if _NAMESPACE_FILE.exists():
        config.load_incluster_config(client_configuration=settings)
        namespace = _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    else:
        kubeconfig = environment.get("KUBECONFIG")
        config.load_kube_config(kubeconfig, client_configuration=settings)
        _, active = config.list_kube_config_contexts(kubeconfig)
        namespace = active["context"].get("namespace", "default")
    settings.retries = _RETRIES
    return client.ApiClient(settings), namespace


def _owner(environment: Mapping[str, str]) -> list[Manifest]:
    """This pod, from the variables that Kubeflow Pipelines sets."""
    name, uid = environment.get("KFP_POD_NAME"), environment.get("KFP_POD_UID")
    return [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}] if name and uid else []


def _create(jobs: Any, pods: Any, place: dict[str, str], manifest: Manifest) -> None:
    name = manifest["metadata"]["name"]
    try:
        jobs.create_namespaced_custom_object(**place, body=manifest)
        return
    except ApiException as error:
        if error.status != 409:
            raise
    owner = _living_owner(jobs, pods, place, name)
    if owner:
        raise TrainingJobError(f"TFJob {name}: pod {owner} is training the same model; wait for its run to finish")
    print(f"TFJob {name} belongs to a pod that no longer exists; replacing it", flush=True)
    _delete(jobs, place, name)
    while _get(jobs, place, name) is not None:
        time.sleep(_POLL_S)
    jobs.create_namespaced_custom_object(**place, body=manifest)


def _living_owner(jobs: Any, pods: Any, place: dict[str, str], name: str) -> str | None:
    for owner in ((_get(jobs, place, name) or {}).get("metadata", {})).get("ownerReferences", []):
        try:
            pod = pods.read_namespaced_pod(owner["name"], place["namespace"])
        except ApiException as error:
            if error.status != 404:
                raise
            continue
        if pod.metadata.uid == owner["uid"] and pod.status.phase not in _FINISHED_PHASES:
            return str(owner["name"])
    return None


def _follow(jobs: Any, pods: Any, place: dict[str, str], name: str) -> None:
    phases: dict[str, str] = {}
    logs: list[threading.Thread] = []
    while True:
        job = _get(jobs, place, name)
        if job is None:
            raise TrainingJobError(f"TFJob {name} was deleted while it ran; run the pipeline again")
        listed = pods.list_namespaced_pod(place["namespace"], label_selector=f"{JOB_LABEL}={name}").items
        for pod in listed:
            before, now = phases.get(pod.metadata.name), pod.status.phase
            phases[pod.metadata.name] = now
            if now != before:
                print(f"{pod.metadata.name}: {now}", flush=True)
            if now != "Pending" and before in (None, "Pending"):
                arguments = (pods, place["namespace"], pod.metadata.name)
                logs.append(threading.Thread(target=_print_log, args=arguments, daemon=True))
                logs[-1].start()
        conditions = {c["type"]: c for c in job.get("status", {}).get("conditions", []) if c["status"] == "True"}
        if "Succeeded" in conditions or "Failed" in conditions:
            deadline = time.monotonic() + _LAST_LINES_S
            for log in logs:
                log.join(max(0.0, deadline - time.monotonic()))
            if "Failed" in conditions:
                message = conditions["Failed"].get("message", "no reason given")
                raise TrainingJobError(f"TFJob {name} failed: {message}; {_remedy(listed)}")
            return
        time.sleep(_POLL_S)


def _remedy(pods: list[Any]) -> str:
    """What to do about a failed job; the log of a pod that was killed for its memory does not show why it ended."""
    killed = [
        pod.metadata.name
        for pod in pods
        for container in pod.status.container_statuses or []
        if container.state.terminated and container.state.terminated.reason == "OOMKilled"
    ]
    if killed:
        return (
            f"{', '.join(sorted(killed))} needed more memory than its limit and was killed; raise "
            "kubeflow.pods.Worker.memory_limit_gb, or lower trainer.batch_size"
        )
    return "see the workers' logs above; the next attempt continues from the last checkpoint"


def _print_log(pods: Any, namespace: str, pod: str) -> None:
    try:
        stream = pods.read_namespaced_pod_log(pod, namespace, container=CONTAINER, follow=True, _preload_content=False)
        for line in stream:
            print(f"{pod}: {line.decode(errors='replace').rstrip()}", flush=True)
    except (ApiException, urllib3.exceptions.HTTPError) as error:
        print(f"{pod}: cannot read the rest of the log: {error}", flush=True)


@contextmanager
def _termination_as_exception() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that terminating the run also deletes the job."""

    def leave(*_: Any) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _get(jobs: Any, place: dict[str, str], name: str) -> Manifest | None:
    try:
        job: Manifest = jobs.get_namespaced_custom_object(**place, name=name)
    except ApiException as error:
        if error.status != 404:
            raise
        return None
    return job


def _delete(jobs: Any, place: dict[str, str], name: str) -> None:
    try:
        # Deletes the pods before the job, so that a new job of the same name finds none of them.
        jobs.delete_namespaced_custom_object(**place, name=name, propagation_policy="Foreground")
    except ApiException as error:
        if error.status != 404:
            raise


def _reason(error: Any) -> str:
    hint = {
        403: ": the pod's service account lacks the permission; apply deploy/tfjob-rbac.yaml",
        404: ": install Kubeflow's Training Operator",
    }
    return f"{error.status} {error.reason}{hint.get(error.status, '')}"
