"""Creates, lists, pauses, resumes and deletes schedules (Kubeflow's recurring runs)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api  # type: ignore[import-untyped]

from pipeline.kubeflow.client.server import Server
from runtime.errors import UsageError

_PAGE_SIZE = 100


class ScheduleError(UsageError):
    """The schedule does not exist, its name is ambiguous, or the name of a new one is taken."""


@dataclass(frozen=True)
class Schedule:
    """One recurring run, as listed."""

    id: str
    name: str
    cron: str
    enabled: bool
    max_concurrency: int | None


def create_schedule(
    server: Server,
    package: Path,
    *,
    name: str,
    experiment: str,
    cron: str,
    max_concurrency: int,
    no_catchup: bool,
    parameters: Mapping[str, Any],
    service_account: str | None,
) -> str:
    """Create a schedule and return its id.

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
            cron_expression=cron,
            max_concurrency=max_concurrency,
            no_catchup=no_catchup,
            params=dict(parameters),
            pipeline_package_path=str(package),
            enable_caching=None,  # as compiled; True would also cache the data-version task
            service_account=service_account,
        )
    return str(created.recurring_run_id)


def list_schedules(server: Server) -> list[Schedule]:
    """All schedules, sorted by name; raises ServerError."""
    with server.connect() as client:
        found = _all_schedules(client, server)
    return sorted((_schedule(s) for s in found), key=lambda schedule: (schedule.name, schedule.id))


def pause_schedule(server: Server, name_or_id: str) -> str:
    """Stop starting runs; returns the id. Raises ScheduleError, ServerError."""
    return _change(server, name_or_id, "disable_recurring_run")


def resume_schedule(server: Server, name_or_id: str) -> str:
    """Start runs again; returns the id. Raises ScheduleError, ServerError."""
    return _change(server, name_or_id, "enable_recurring_run")


def delete_schedule(server: Server, name_or_id: str) -> str:
    """Delete the schedule but not its past runs; returns the id. Raises ScheduleError, ServerError."""
    return _change(server, name_or_id, "delete_recurring_run")


def _change(server: Server, name_or_id: str, method: str) -> str:
    with server.connect() as client:
        schedules = _all_schedules(client, server)
        found = [s.recurring_run_id for s in schedules if name_or_id in (s.display_name, s.recurring_run_id)]
        if not found:
            names = ", ".join(sorted(s.display_name for s in schedules)) or "none"
            raise ScheduleError(f"no schedule is named '{name_or_id}'; existing schedules: {names}")
        if len(found) > 1:
            raise ScheduleError(f"several schedules are named '{name_or_id}'; pass an id instead: {', '.join(found)}")
        getattr(client, method)(found[0])
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


def _schedule(recurring_run: Any) -> Schedule:
    trigger = recurring_run.trigger
    cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else ""
    concurrency = recurring_run.max_concurrency
    return Schedule(
        recurring_run.recurring_run_id,
        recurring_run.display_name,
        cron,
        recurring_run.status == kfp_server_api.V2beta1RecurringRunStatus.ENABLED,
        int(concurrency) if concurrency is not None else None,
    )
