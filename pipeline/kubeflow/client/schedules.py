"""Creates, lists, pauses, resumes and deletes schedules (Kubeflow's recurring runs)."""

from pathlib import Path
from typing import Any, Literal

import kfp_server_api  # type: ignore[import-untyped]

from pipeline.kubeflow.client.server import Server
from runtime.errors import UsageError

_PAGE_SIZE = 100


class ScheduleError(UsageError):
    """The schedule does not exist, its name is ambiguous, or the name of a new one is taken."""


def create_schedule(server: Server, package: Path, *, name: str, experiment: str, **options: Any) -> str:
    """Create a schedule, with further `options` of kfp's create_recurring_run, and return its id.

    Raises ServerError, and ScheduleError if the name is taken: Kubeflow would run both schedules.
    """
    with server.connect() as client:
        existing = [s.recurring_run_id for s in _all_schedules(client, server) if s.display_name == name]
        if existing:
            raise ScheduleError(
                f"a schedule named '{name}' already exists ({existing[0]}), and Kubeflow would run both; "
                f"delete it first with --delete {name}, or choose another --name"
            )
        experiment_id = client.create_experiment(experiment, namespace=server.namespace).experiment_id
        created = client.create_recurring_run(
            experiment_id=experiment_id,
            job_name=name,
            pipeline_package_path=str(package),
            enable_caching=None,  # as compiled; True would also cache the data-version task
            **options,
        )
    return str(created.recurring_run_id)


def list_schedules(server: Server) -> list[dict[str, Any]]:
    """Id, name, cron expression, state and maximal concurrency of all schedules, by name; raises ServerError."""
    with server.connect() as client:
        found = _all_schedules(client, server)
    return sorted(map(_listed, found), key=lambda schedule: (schedule["name"], schedule["id"]))


def change_schedule(server: Server, name_or_id: str, action: Literal["disable", "enable", "delete"]) -> str:
    """Change a schedule (its past runs stay), and return its id; raises ScheduleError and ServerError."""
    with server.connect() as client:
        schedules = _all_schedules(client, server)
        found = [s.recurring_run_id for s in schedules if name_or_id in (s.display_name, s.recurring_run_id)]
        if not found:
            names = ", ".join(sorted(s.display_name for s in schedules)) or "none"
            raise ScheduleError(f"no schedule is named '{name_or_id}'; existing schedules: {names}")
        if len(found) > 1:
            raise ScheduleError(f"several schedules are named '{name_or_id}'; pass an id instead: {', '.join(found)}")
        getattr(client, f"{action}_recurring_run")(found[0])
    return str(found[0])


def _all_schedules(client: Any, server: Server) -> list[Any]:
    schedules: list[Any] = []
    page_token = ""
    while True:
        page = client.list_recurring_runs(page_token=page_token, page_size=_PAGE_SIZE, namespace=server.namespace)
        schedules += page.recurring_runs or []
        page_token = page.next_page_token or ""
        if not page_token:
            return schedules


def _listed(recurring_run: Any) -> dict[str, Any]:
    trigger, concurrency = recurring_run.trigger, recurring_run.max_concurrency
    return {
        "id": recurring_run.recurring_run_id,
        "name": recurring_run.display_name,
        "cron": trigger.cron_schedule.cron if trigger and trigger.cron_schedule else "",
        "enabled": recurring_run.status == kfp_server_api.V2beta1RecurringRunStatus.ENABLED,
        "max_concurrency": int(concurrency) if concurrency is not None else None,
    }
