"""Submission and schedules through Kubeflow's own client; credentials never get into a message."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp  # type: ignore[import-untyped]
import kfp_server_api  # type: ignore[import-untyped]
import urllib3  # type: ignore[import-untyped]
import yaml

from pipeline.kubeflow.simulator.driver import RefusedError, typed
from runtime.errors import UsageError, UserError

TOKEN_VARIABLE, COOKIES_VARIABLE = "KUBEFLOW_TOKEN", "KUBEFLOW_COOKIES"
_PAGE_SIZE = 100
_SINGLE_USER_NAMESPACE = "kubeflow"
_LONGEST_REASON = 300


class ServerError(UserError):
    """The server could not be reached or refused; the message says which and what to do."""


class ScheduleError(UsageError):
    """The schedule that was named does not exist, is not the only one, or exists already."""


@dataclass(frozen=True)
class Server:
    """Where to connect, and as whom; the secrets are never part of its text."""

    host: str
    namespace: str | None = None
    token: str | None = None
    cookies: str | None = None

    def __repr__(self) -> str:
        return f"Server({self.host!r}, namespace={self.namespace!r})"

    def connect(self) -> Any:
        """A kfp.Client. Raises ServerError where nothing answers."""
        with _errors_explained(self.host), _quiet():
            # The client asks a server that gives no namespace whether it has several users.
            return kfp.Client(
                host=self.host,
                namespace=self.namespace or _SINGLE_USER_NAMESPACE,
                existing_token=self.token,
                cookies=self.cookies,
            )


def read_secret(environment: Mapping[str, str], variable: str, file: Path | None) -> str | None:
    """The content of `file`, or else of the variable; None if there is neither."""
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    return environment.get(variable) or None


def convert_parameters(package: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """`{"epochs": "20"}` -> `{"epochs": 20}`, as the package declares it.

    Raises RefusedError for a name that it does not have, or a value of the wrong type.
    """
    spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in given:
        if name not in declared:
            raise RefusedError(f"--param {name}: the package has {', '.join(sorted(declared)) or 'no parameters'}")
    return {name: typed(name, text, declared[name]["parameterType"]) for name, text in given.items()}


def submit(
    server: Server,
    package: Path,
    *,
    experiment: str,
    run_name: str,
    parameters: Mapping[str, Any],
    service_account: str | None,
) -> str:
    """Start one run; returns its id. Raises ServerError."""
    client = server.connect()
    with _errors_explained(server.host), _quiet():
        result = client.create_run_from_pipeline_package(
            str(package),
            arguments=dict(parameters),
            run_name=run_name,
            experiment_name=experiment,
            namespace=server.namespace,
            enable_caching=None,  # as compiled: True would also cache the look at the data
            service_account=service_account,
        )
    return str(result.run_id)


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
    """Create a recurring run; returns its id.

    Raises ScheduleError if one has the name already, for Kubeflow would run both; ServerError.
    """
    client = server.connect()
    with _errors_explained(server.host), _quiet():
        existing = [s.recurring_run_id for s in _all_schedules(client, server) if s.display_name == name]
        if existing:
            raise ScheduleError(
                f"a schedule called '{name}' exists ({existing[0]}) and both would run; "
                f"remove it first with --delete {name}"
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
            enable_caching=None,
            service_account=service_account,
        )
    return str(created.recurring_run_id)


@dataclass(frozen=True)
class Schedule:
    """One recurring run, as listed."""

    id: str
    name: str
    cron: str
    enabled: bool
    max_concurrency: int | None


def list_schedules(server: Server) -> list[Schedule]:
    """All recurring runs, in order of their names. Raises ServerError."""
    client = server.connect()
    with _errors_explained(server.host), _quiet():
        found = _all_schedules(client, server)
    return sorted((_schedule(s) for s in found), key=lambda schedule: (schedule.name, schedule.id))


def pause_schedule(server: Server, name_or_id: str) -> str:
    """No further runs start; returns the id. Raises ScheduleError, ServerError."""
    return _change(server, name_or_id, "disable_recurring_run")


def resume_schedule(server: Server, name_or_id: str) -> str:
    """Runs start again; returns the id. Raises ScheduleError, ServerError."""
    return _change(server, name_or_id, "enable_recurring_run")


def delete_schedule(server: Server, name_or_id: str) -> str:
    """Gone for good, its past runs stay; returns the id. Raises ScheduleError, ServerError."""
    return _change(server, name_or_id, "delete_recurring_run")


def _change(server: Server, name_or_id: str, method: str) -> str:
    client = server.connect()
    with _errors_explained(server.host), _quiet():
        schedules = _all_schedules(client, server)
        found = [s.recurring_run_id for s in schedules if name_or_id in (s.display_name, s.recurring_run_id)]
        if not found:
            names = ", ".join(sorted(s.display_name for s in schedules)) or "none"
            raise ScheduleError(f"no schedule is called '{name_or_id}'; there are: {names}")
        if len(found) > 1:
            raise ScheduleError(f"several schedules are called '{name_or_id}'; name one by its id: {', '.join(found)}")
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """kfp.Client prints links and warns of its own version; neither belongs among our output."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        previous = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(previous)


@contextlib.contextmanager
def _errors_explained(host: str) -> Iterator[None]:
    """Without headers, which may hold a session's cookie."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        reason = f"{error.status} {error.reason}"
        if error.status in (401, 403):
            reason += f": set {TOKEN_VARIABLE} or {COOKIES_VARIABLE}, and --namespace where users have their own"
        elif error.body:
            body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body)
            reason += f": {body[:_LONGEST_REASON]}"
        raise ServerError(f"{host} answered {reason}") from None
    except TimeoutError:
        raise ServerError(
            f"{host} failed its health check five times: is it Kubeflow Pipelines, and does it let you in? "
            f"({TOKEN_VARIABLE}, {COOKIES_VARIABLE}, --namespace)"
        ) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ServerError(f"{host} cannot be reached ({type(error).__name__}); is the address right?") from None
