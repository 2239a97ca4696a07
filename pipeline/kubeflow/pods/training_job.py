"""A TFJob from its creation to its deletion: whoever calls this waits for it and sees its pods' logs."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3  # type: ignore[import-untyped]
from kubernetes import client, config  # type: ignore[import-untyped]
from kubernetes.client.exceptions import ApiException  # type: ignore[import-untyped]

from pipeline.kubeflow.tfjob import CONTAINER, GROUP, PLURAL, VERSION, Manifest
from runtime.errors import UserError

JOB_LABEL = "training.kubeflow.org/job-name"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_POLL_S = 2.0
_LAST_LINES_S = 30.0
_RETRIES = urllib3.Retry(total=10, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504))
"""An API server that restarts, which takes a minute, costs no training."""
_FINISHED_PHASES = ("Succeeded", "Failed")


class TrainingJobError(UserError):
    """The job failed, vanished or could not be created; the message says why."""


def run_training_job(manifest: Manifest, environment: Mapping[str, str]) -> None:
    """Create the job, print what its pods say until it ends, delete it in every case; TrainingJobError if it fails.

    It runs in this pod's namespace; outside of a cluster, where kubectl's current context points. Kubernetes deletes it
    together with the pod that `environment` names, should that be deleted first.
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
    """The pod that this runs in, by the variables that Kubeflow Pipelines gives it."""
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
        raise TrainingJobError(f"TFJob {name}: pod {owner} trains the same model at this moment; wait for its run")
    print(f"TFJob {name} was left by a pod that is no more: it is replaced", flush=True)
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
            raise TrainingJobError(f"TFJob {name}: somebody deleted it")
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
                raise TrainingJobError(
                    f"TFJob {name} failed: {conditions['Failed'].get('message', 'for no stated reason')}; the workers' "
                    "logs are above; the next attempt continues from the last checkpoint"
                )
            return
        time.sleep(_POLL_S)


def _print_log(pods: Any, namespace: str, pod: str) -> None:
    try:
        stream = pods.read_namespaced_pod_log(pod, namespace, container=CONTAINER, follow=True, _preload_content=False)
        for line in stream:
            print(f"{pod}: {line.decode(errors='replace').rstrip()}", flush=True)
    except (ApiException, urllib3.exceptions.HTTPError) as error:
        print(f"{pod}: its log cannot be read any more: {error}", flush=True)


@contextmanager
def _termination_as_exception() -> Iterator[None]:
    """Whoever ends the pipeline's run ends the job with it."""

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
        # The job goes last, so that one of the same name finds none of its pods.
        jobs.delete_namespaced_custom_object(**place, name=name, propagation_policy="Foreground")
    except ApiException as error:
        if error.status != 404:
            raise


def _reason(error: Any) -> str:
    hint = {
        403: ": the pod's service account may not; see deploy/tfjob-rbac.yaml",
        404: ": is Kubeflow's Training Operator installed?",
    }
    return f"{error.status} {error.reason}{hint.get(error.status, '')}"
