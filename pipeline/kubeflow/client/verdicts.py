"""Reads the verdict and the report that a run's last tasks left in the object store."""

import json
from typing import Any

from pipeline.kubeflow.client.runs import specification_of
from pipeline.kubeflow.names import PAGE_KEY, SUMMARY_KEY, VERDICT_TASK, Message
from runtime.errors import UserError
from runtime.object_store import RemotePath


class StoreError(UserError):
    """The object store cannot be read, or the run left nothing there."""


def read_summary(run: Any) -> Message | None:
    """The summary of the run's verdict task; None if the run has none (yet). Raises StoreError."""
    content = _read(run, SUMMARY_KEY)
    return None if content is None else dict(json.loads(content))


def read_page(run: Any) -> bytes:
    """The run's report; raises StoreError."""
    content = _read(run, PAGE_KEY)
    if content is None:
        raise StoreError(
            f"run {run.run_id} has no report in {folder_of(run)}: it has not come that far, or an older package ran"
        )
    return content


def folder_of(run: Any) -> RemotePath:
    """Where Kubeflow keeps the outputs of the run's verdict task: ROOT/PIPELINE/RUN/TASK/<random>/OUTPUT."""
    spec = specification_of(run)
    root = (run.runtime_config and run.runtime_config.pipeline_root) or spec["defaultPipelineRoot"]
    return RemotePath(f"{root.rstrip('/')}/{spec['pipelineInfo']['name']}/{run.run_id}/{VERDICT_TASK}")


def _read(run: Any, key: str) -> bytes | None:
    folder = folder_of(run)
    try:
        found = [name for name, _ in folder.files_below() if name.endswith(f"/{key}")]
        return (folder / found[-1]).read_bytes() if found else None
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be read: {error}; set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to "
            "those of the object store: docs/kubeflow.md"
        ) from None
