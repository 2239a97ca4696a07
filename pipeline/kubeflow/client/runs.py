"""Reads runs from Kubeflow's server: the state of each task, and the logs of its pods."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import kfp_server_api  # type: ignore[import-untyped]
import urllib3

from pipeline.kubeflow.client.server import Server
from pipeline.kubeflow.names import Message
from pipeline.states import CACHED, FAILED, RAN

SUCCEEDED: Final = "SUCCEEDED"
ENDED: Final = (SUCCEEDED, "FAILED", "CANCELED", "SKIPPED")
_EXECUTOR = "executor"
"""Name of the node below each task that is its pod; Argo skips it if the driver found the result in the cache."""
_TEMPLATES = ("system-container-impl", "retry-system-container-impl")
"""Templates of that node, which are part of its pod's name."""
_LAST_LINES = 20


@dataclass(frozen=True)
class ClusterTask:
    """A task that has ended: its state (ran, cached or failed), the seconds that it took, and its pods, last first."""

    name: str
    state: str
    seconds: float
    pods: tuple[str, ...]


def specification_of(run: Any) -> Message:
    """The first document of the run's package; {} for a run of a pipeline that the server stores apart from it."""
    given: Message = run.pipeline_spec or {}
    return dict(given.get("pipeline_spec", given))


def ended_tasks(run: Any) -> list[ClusterTask]:
    """The tasks of a run that have ended, in order of their end."""
    details = (run.run_details.task_details if run.run_details else None) or []
    names = specification_of(run).get("root", {}).get("dag", {}).get("tasks", {})
    ended = sorted((d for d in details if d.display_name in names and d.state in ENDED and d.end_time), key=_end)
    by_node = {detail.pod_name: detail for detail in details if detail.pod_name}
    return [_ended_task(detail, by_node) for detail in ended]


def _end(detail: Any) -> Any:
    return detail.end_time, detail.display_name


def _ended_task(task: Any, by_node: dict[str, Any]) -> ClusterTask:
    below = list(_below(task, by_node))
    is_cached = any(d.display_name == _EXECUTOR and d.state == "SKIPPED" for d in below)
    state = CACHED if is_cached else RAN if task.state == SUCCEEDED else FAILED
    pods = [d.pod_name for d in [*below, task] if d.pod_name and d.display_name.startswith(_EXECUTOR)]
    return ClusterTask(task.display_name, state, seconds_between(task.start_time, task.end_time), tuple(reversed(pods)))


def _below(task: Any, by_node: dict[str, Any]) -> Iterator[Any]:
    """The nodes below a task; a pod's retries are below the node of the first one."""
    for child in task.child_tasks or []:
        detail = by_node.get(child.pod_name)
        # Argo also lists the tasks that wait for this one as its children.
        if detail is not None and detail.display_name.startswith(_EXECUTOR):
            yield detail
            yield from _below(detail, by_node)


def seconds_between(start: datetime.datetime | None, end: datetime.datetime | None) -> float:
    """The duration; 0 if either end is unknown, as the epoch stands for "not yet"."""
    if start is None or end is None or start.timestamp() <= 0:
        return 0.0
    return max(0.0, (end - start).total_seconds())


def last_lines(client: Any, server: Server, run_id: str, task: ClusterTask) -> list[str]:
    """The end of the log of a task's last pod; [] if the server does not have it, e.g. because the pod was deleted."""
    for node in task.pods:
        workflow, _, number = node.rpartition("-")
        for pod in (*(f"{workflow}-{template}-{number}" for template in _TEMPLATES), node):
            if text := _log(client, server, run_id, pod):
                return text.splitlines()[-_LAST_LINES:]
    return []


def _log(client: Any, server: Server, run_id: str, pod: str) -> str:
    """A pod's log from the API server or, if `server` is Kubeflow's web page, from that."""
    api = client._run_api.api_client
    query = [("podname", pod), ("runid", run_id), *([("podnamespace", server.namespace)] if server.namespace else [])]
    for path, parameters in (
        (f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", []),
        ("/k8s/pod/logs", query),
    ):
        try:
            response = api.call_api(
                path, "GET", query_params=parameters, auth_settings=["Bearer"], _preload_content=False
            )
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError):
            continue
        content: bytes = response.data
        if response.status == 200 and not content.lstrip().startswith(
            b"<"
        ):  # the page answers unknown paths with itself
            return content.decode(errors="replace")
    return ""
