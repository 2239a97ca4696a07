"""Follows a run on Kubeflow until it ends."""

import time
from collections.abc import Callable
from typing import Any

from pipeline.kubeflow.client.runs import ENDED, SUCCEEDED, ClusterTask, ended_tasks, last_lines
from pipeline.kubeflow.client.server import Server, ServerError
from pipeline.kubeflow.client.verdicts import read_summary
from pipeline.kubeflow.names import BLESSED, FAIL_TASK, REFUSED, VERDICT_TASK
from pipeline.states import FAILED

_POLL_S = 3.0
_UNREACHABLE_S = 300.0
"""How long the server may be away, e.g. while it restarts."""


def follow(server: Server, run_id: str, listen: Callable[[ClusterTask, list[str]], None]) -> Any:
    """Call `listen` for each task that ends, with the last lines of its log if it failed; returns the ended run.

    Raises ServerError if the server stays away for minutes.
    """
    told: set[str] = set()
    answered = time.monotonic()
    while True:
        try:
            with server.connect() as client:
                run = client.get_run(run_id)
                tasks = [task for task in ended_tasks(run) if task.name not in told]
                logs = {task.name: last_lines(client, server, run_id, task) for task in tasks if task.state == FAILED}
            answered = time.monotonic()
        except ServerError:
            if time.monotonic() - answered > _UNREACHABLE_S:
                raise
            time.sleep(_POLL_S)
            continue
        for task in tasks:
            told.add(task.name)
            listen(task, logs.get(task.name, []))
        if run.state in ENDED:
            return run
        time.sleep(_POLL_S)


def verdict_of(server: Server, run: Any) -> tuple[str, str] | None:
    """(blessed or refused, the gate's reasons) of an ended run, from its log or the object store.

    None if the run has no verdict. Raises StoreError if it has one that neither place gives.
    """
    tasks = {task.name: task for task in ended_tasks(run)}
    if VERDICT_TASK not in tasks or tasks[VERDICT_TASK].state == FAILED:
        return None
    with server.connect() as client:
        for name in (VERDICT_TASK, FAIL_TASK):
            for line in reversed(last_lines(client, server, run.run_id, tasks[name]) if name in tasks else []):
                verdict, separator, explanation = line.partition(": ")
                if separator and verdict in (BLESSED, REFUSED):
                    return verdict, explanation
    summary = read_summary(run)
    return (summary["verdict"], summary["explanation"]) if summary else None


def is_refusal(run: Any) -> bool:
    """Whether a failed run failed only because the gate refused the model."""
    return run.state != SUCCEEDED and [task.name for task in ended_tasks(run) if task.state == FAILED] == [FAIL_TASK]
