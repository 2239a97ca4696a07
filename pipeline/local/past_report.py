"""Finds the report of a past run among its artifacts, or writes it from them."""

import json
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.types import Artifact, artifact_utils

from components.report.component import REPORT_KEY, Report, ReportSpec, report_inputs
from components.report.page import write_report
from pipeline.metadata.history import node_of, runs_of
from runtime.errors import UsageError
from schema.artifacts import REPORT_FILE


class NoReportError(UsageError):
    """There is no such run, or it has no evaluation to report."""


def find_or_build(folder: Path, connection: Any, run_id: str | None, *, rebuild: bool, continuing: str) -> Path:
    """The report of the run with this id, or of the newest evaluated run; `continuing` continues an unfinished one.

    A missing report is written to `reports/<run id>/`; that of the newest run also becomes `report.html` in `folder`.
    """
    with metadata.Metadata(connection) as handle:
        store = handle.store
        runs = runs_of(store, folder.absolute().name)
        evaluated = [run for run in runs if "evaluation" in _outputs(store, run)[0]]
        chosen = [run for run in evaluated if run_id in (None, run.name)]
        if not chosen:
            names, with_report = ([run.name for run in each] for each in (runs, evaluated))
            if run_id is None or run_id in names:
                raise NoReportError(f"{folder}: the run has no evaluation to report; continue it with: {continuing}")
            known = ", ".join(with_report) or "none"
            raise NoReportError(f"--run-id {run_id}: no such run in {folder}; evaluated runs: {known}")
        run = chosen[0]
        artifacts, producers, settings = _outputs(store, run)
    written = Path(artifacts[REPORT_KEY][0].uri, REPORT_FILE) if REPORT_KEY in artifacts else None
    if rebuild or written is None or not written.exists():
        target = folder / "reports" / run.name
        try:
            write_report(report_inputs(artifacts, settings=settings, producers=producers), str(target))
        except (FileNotFoundError, tf.errors.NotFoundError) as error:
            raise NoReportError(f"{folder}: a file of run {run.name} has been removed: {error}") from None
        written = target / REPORT_FILE
    if run is evaluated[0]:
        return Path(shutil.copyfile(written, folder / REPORT_FILE))
    return written


def _outputs(store: Any, run: Any) -> tuple[dict[str, list[Artifact]], dict[str, str], dict[str, Any]]:
    """(artifacts by the Report's input keys, the component that wrote each, the Report's `settings`)."""
    artifacts: dict[str, list[Artifact]] = {}
    producers: dict[str, str] = {}
    settings: dict[str, Any] = {}
    for execution in sorted(store.get_executions_by_context(run.id), key=lambda e: int(e.id)):
        component = node_of(store, execution)
        if component == Report.__name__:
            settings = json.loads(execution.custom_properties["settings"].string_value)
        for event in store.get_events_by_execution_ids([execution.id]):
            key = event.path.steps[0].key if event.type == mlmd.Event.OUTPUT else ""
            if event.type == mlmd.Event.INTERNAL_OUTPUT and event.path.steps[0].key == "model":  # of a Resolver
                key = "baseline_model"
            if key in ReportSpec.INPUTS or key == REPORT_KEY:
                [artifact] = store.get_artifacts_by_id([event.artifact_id])
                [artifact_type] = store.get_artifact_types_by_id([artifact.type_id])
                artifacts[key] = [artifact_utils.deserialize_artifact(artifact_type, artifact)]
                producers[key] = component
    return artifacts, producers, settings
