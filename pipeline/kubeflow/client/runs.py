"""Starts a single run of a compiled package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.kubeflow.client.server import Server


def submit(
    server: Server,
    package: Path,
    *,
    experiment: str,
    run_name: str,
    parameters: Mapping[str, Any],
    service_account: str | None,
) -> str:
    """Start one run and return its id; raises ServerError."""
    with server.connect() as client:
        result = client.create_run_from_pipeline_package(
            str(package),
            arguments=dict(parameters),
            run_name=run_name,
            experiment_name=experiment,
            namespace=server.namespace,
            enable_caching=None,  # as compiled; True would also cache the data-version task
            service_account=service_account,
        )
    return str(result.run_id)
