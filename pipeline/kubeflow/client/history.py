"""Lists the runs on a cluster as local runs are listed."""

import datetime
from typing import Any

from pipeline.kubeflow.client.runs import ENDED, ended_tasks, seconds_between, specification_of
from pipeline.kubeflow.client.server import Server
from pipeline.kubeflow.client.verdicts import StoreError, read_summary
from pipeline.kubeflow.names import FAIL_TASK, Message
from pipeline.metadata.history import PastRun
from pipeline.states import FAILED

_NEWEST = 50


def cluster_runs(server: Server) -> tuple[dict[str, list[PastRun]], StoreError | None]:
    """Pipeline -> its newest runs, newest first, and why verdicts are missing, if any are. Raises ServerError."""
    with server.connect() as client:
        page = client.list_runs(page_size=_NEWEST, sort_by="created_at desc", namespace=server.namespace)
        runs = [client.get_run(run.run_id) for run in page.runs or []]
    found: dict[str, list[PastRun]] = {}
    unread: StoreError | None = None
    for run in runs:
        spec = specification_of(run)
        if "pipelineInfo" not in spec:
            continue  # another tool submitted it
        summary = None
        if unread is None:
            try:
                summary = read_summary(run)
            except StoreError as error:
                unread = error
        found.setdefault(spec["pipelineInfo"]["name"], []).append(_past_run(run, summary))
    return found, unread


def _past_run(run: Any, summary: Message | None) -> PastRun:
    failed = [task.name for task in ended_tasks(run) if task.state == FAILED and task.name != FAIL_TASK]
    unfinished = "incomplete" if run.state in ENDED else str(run.state or "pending").lower()
    ended = run.finished_at if run.state in ENDED else datetime.datetime.now(datetime.timezone.utc)
    return PastRun(
        run_id=run.run_id,
        started_ms=int(run.created_at.timestamp() * 1000),
        seconds=seconds_between(run.created_at, ended),
        verdict=summary["verdict"] if summary else unfinished,
        mean_error=summary["metrics"].get("mean_error") if summary else None,
        pushed=summary["pushed"] if summary else None,
        failed_in=failed[0] if failed else None,
    )
