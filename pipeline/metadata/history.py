"""Reads the results of past runs from ML Metadata."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.utils import path_utils

from pipeline.metadata.ownership import state_of_latest_run
from pipeline.metadata.run_lock import ENDED, RUNNING, state_of_run
from schema.artifact_types import Calibration
from schema.artifacts import (
    COUNTS_FILE,
    DRIFT_FILE,
    GATE_FILE,
    NOT_PUSHED_BECAUSE,
    PUSHED_DESTINATION,
    RECORD_FILE,
    REPORT_FILE,
    REPORT_TYPE,
    SECONDS_PROPERTY,
    USED_BITS,
)

_PIPELINE_CONTEXT = "pipeline"
_RUN_CONTEXT = "pipeline_run"
_NODE_CONTEXT = "node"
_INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class PastRun:
    """One run; `verdict` is blessed or refused or, without a verdict yet, running, incomplete or unknown.

    `mean_error`: None if the Evaluator did not finish. `failed_in`: the component whose failure ended an incomplete
    run, if any. `machine`: of an unknown run, where it ran last, and may still do so.
    """

    run_id: str
    started_ms: int
    seconds: float
    verdict: str
    mean_error: float | None
    pushed: str | None
    failed_in: str | None
    machine: str | None = None


def newest(nodes: Iterable[Any]) -> Any:
    """The artifact or execution that was created last; None if there is none."""
    return max(nodes, key=lambda node: int(node.id), default=None)


def latest_blessed(connection: Any, pipeline: str) -> tuple[str, str, str | None] | None:
    """The pipeline's latest blessed model: folders of the SavedModel, its analysis, and its images' statistics."""
    with metadata.Metadata(connection) as handle:
        store = handle.store
        blessings = _artifacts_of(store, pipeline, "ModelBlessing")
        latest = newest(a for a in blessings if a.custom_properties["blessed"].int_value == 1)
        if latest is None:
            return None
        execution = store.get_events_by_artifact_ids([latest.id])[0].execution_id
        ids = _artifacts_by_key(store, execution)
        model, analysis = (store.get_artifacts_by_id([ids[key]])[0].uri for key in ("model", "analysis"))
        measured = store.get_events_by_artifact_ids([ids["analysis"]])[0].execution_id
        examples = _artifacts_by_key(store, measured)["examples"]
        return path_utils.serving_model_path(model), analysis, _statistics_of(store, examples)


def latest_calibration(connection: Any, pipeline: str) -> tuple[str, str, str] | None:
    """Of the pipeline's latest calibrated model, blessed or not: folders of the SavedModel, Examples, Calibration."""
    with metadata.Metadata(connection) as handle:
        latest = newest(_artifacts_of(handle.store, pipeline, Calibration.TYPE_NAME))
        if latest is None:
            return None
        calibrated = handle.store.get_events_by_artifact_ids([latest.id])[0].execution_id
        ids = _artifacts_by_key(handle.store, calibrated)
        model, examples = (handle.store.get_artifacts_by_id([ids[key]])[0].uri for key in ("model", "examples"))
        return path_utils.serving_model_path(model), examples, latest.uri


def examples_of(connection: Any, analysis: str) -> str:
    """The folder of the Examples artifact that an analysis, from `latest_blessed`, was computed from."""
    with metadata.Metadata(connection) as handle:
        [found] = handle.store.get_artifacts_by_uri(analysis)
        measured = handle.store.get_events_by_artifact_ids([found.id])[0].execution_id
        return str(handle.store.get_artifacts_by_id([_artifacts_by_key(handle.store, measured)["examples"]])[0].uri)


def _artifacts_by_key(store: Any, execution: int) -> dict[str, int]:
    """Ids of an execution's inputs and outputs, by key."""
    return {event.path.steps[0].key: event.artifact_id for event in store.get_events_by_execution_ids([execution])}


def _statistics_of(store: Any, examples: int) -> str | None:
    """The folder of the statistics of an Examples artifact; None if there are none."""
    readers = [event.execution_id for event in store.get_events_by_artifact_ids([examples])]
    written = [
        event.artifact_id
        for event in store.get_events_by_execution_ids(readers)
        if event.type == mlmd.Event.OUTPUT and event.path.steps[0].key == "statistics"
    ]
    return str(store.get_artifacts_by_id(written[-1:])[0].uri) if written else None


def latest_destination(connection: Any, pipeline: str) -> str | None:
    """The folder of versions to which the pipeline last pushed a model; None if it pushed none."""
    with metadata.Metadata(connection) as handle:
        latest = newest(a for a in _artifacts_of(handle.store, pipeline, "PushedModel") if pushed_to(a))
        return pushed_to(latest).rpartition("/")[0] if latest else None


def last_durations(connection: Any, pipeline: str) -> dict[str, float]:
    """Component -> seconds of its latest execution in `pipeline` that was not cached."""
    with metadata.Metadata(connection) as handle:
        store = handle.store
        durations = {}
        for context in store.get_contexts_by_type(_NODE_CONTEXT):
            owner, _, name = context.name.rpartition(".")
            executions = store.get_executions_by_context(context.id) if owner == pipeline else []
            latest = newest(e for e in executions if e.last_known_state == mlmd.Execution.COMPLETE)
            if latest:
                durations[name] = (latest.last_update_time_since_epoch - latest.create_time_since_epoch) / 1000
        return durations


def no_verdict() -> dict[str, Any]:
    """The verdict of a run that did not finish."""
    return {
        "blessed": False,
        "purpose": None,
        "pushed": None,
        "not_pushed_because": None,
        "metrics": {},
        "kinds": [],
        "steadiness_images": 0,
        "thresholds": [],
        "model_run": None,
        "images": {},
        "model": {},
        "drift": None,
        "reviewed": {},
        "changes": {},
        "warnings": [],
        "report": None,
    }


def verdict_of_latest(connection: Any, pipeline: str) -> dict[str, Any]:
    """Verdict, metrics, thresholds, image counts and `model_run` (the folder of the logs) of the newest run."""
    with metadata.Metadata(connection) as handle:
        return _verdict(handle.store, runs_of(handle.store, pipeline)[0])


def image_counts_of_latest(connection: Any, pipeline: str) -> dict[str, int]:
    """Split (and `rejected`, `duplicates`) -> images of the newest run, whose ImageExampleGen has finished."""
    with metadata.Metadata(connection) as handle:
        return _image_counts(_outputs(handle.store, runs_of(handle.store, pipeline)[0]))


def past_runs(connection: Any, folder: Path | None) -> dict[str, list[PastRun]]:
    """Pipeline -> all its runs, newest first; `folder`: that of all pipelines, None if the store tells each one's."""
    with metadata.Metadata(connection) as handle:
        store = handle.store
        pipelines = sorted(context.name for context in store.get_contexts_by_type(_PIPELINE_CONTEXT))
        return {name: _past_runs(store, name, folder) for name in pipelines}


def _past_runs(store: Any, pipeline: str, folder: Path | None) -> list[PastRun]:
    found = [_past_run(store, run) for run in runs_of(store, pipeline)]
    if not found or found[0].verdict != _INCOMPLETE or found[0].failed_in:
        return found
    last, *earlier = found
    state_of = partial(state_of_latest_run, store, pipeline) if folder is None else partial(state_of_run, folder)
    state = state_of(last.started_ms)
    if state == RUNNING:
        last = replace(last, verdict=RUNNING, seconds=time.time() - last.started_ms / 1000)
    elif state != ENDED:
        last = replace(last, verdict="unknown", machine=state)
    return [last, *earlier]


def _artifacts_of(store: Any, pipeline: str, type_name: str) -> list[Any]:
    context = store.get_context_by_type_and_name(_PIPELINE_CONTEXT, pipeline)
    return [a for a in store.get_artifacts_by_context(context.id) if a.type == type_name] if context else []


def runs_of(store: Any, pipeline: str) -> list[Any]:
    """The pipeline's run contexts, newest first."""
    context = store.get_context_by_type_and_name(_PIPELINE_CONTEXT, pipeline)
    executions = store.get_executions_by_context(context.id) if context else []
    runs = {
        run.id: run
        for execution in executions
        for run in store.get_contexts_by_execution(execution.id)
        if run.type == _RUN_CONTEXT
    }
    return [runs[key] for key in sorted(runs, reverse=True)]


def _past_run(store: Any, run: Any) -> PastRun:
    executions = store.get_executions_by_context(run.id)
    failed = newest(e for e in executions if e.last_known_state == mlmd.Execution.FAILED)
    verdict = _verdict(store, run)
    state = _INCOMPLETE if not verdict["metrics"] else "blessed" if verdict["blessed"] else "refused"
    ended_ms = max((e.last_update_time_since_epoch for e in executions), default=run.create_time_since_epoch)
    return PastRun(
        run_id=run.name,
        started_ms=run.create_time_since_epoch,
        seconds=(ended_ms - run.create_time_since_epoch) / 1000,
        verdict=state,
        mean_error=verdict["metrics"].get("mean_error"),
        pushed=verdict["pushed"],
        failed_in=node_of(store, failed) if failed and not verdict["metrics"] else None,
    )


def node_of(store: Any, execution: Any) -> str:
    """The name of an execution's component."""
    names = [c.name for c in store.get_contexts_by_execution(execution.id) if c.type == _NODE_CONTEXT]
    return names[0].rpartition(".")[2] if names else str(execution.type)


def _verdict(store: Any, run: Any) -> dict[str, Any]:
    outputs = _outputs(store, run)
    evaluation, pushed = outputs.get("ModelEvaluation"), outputs.get("PushedModel")
    model_run, report = outputs.get("ModelRun"), outputs.get(REPORT_TYPE)
    anomalies = outputs.get("ExampleAnomalies")
    gate = _read(Path(evaluation.uri, GATE_FILE)) if evaluation else {}
    if not gate:
        return no_verdict()
    record = _model_record(outputs)
    counts = _image_counts(outputs) | record.get("images", {})  # records of older versions lack them
    return {
        "blessed": gate["blessed"],
        "purpose": gate.get("purpose"),  # runs of older versions lack it
        "pushed": (pushed_to(pushed) or None) if pushed else None,
        "not_pushed_because": (_text(pushed, NOT_PUSHED_BECAUSE) or None) if pushed else None,
        "metrics": gate["metrics"],
        "kinds": _kinds_of_defect(gate["metrics_by_label"]),
        "steadiness_images": gate.get("steadiness", {}).get("images", 0),  # runs of older versions lack it
        "thresholds": gate["thresholds"],
        "model_run": model_run.uri if model_run else None,
        "images": {name: count for name, count in counts.items() if name != USED_BITS},
        "model": _model_facts(record, outputs),
        "drift": (_read(Path(anomalies.uri, DRIFT_FILE)) or None) if anomalies else None,
        "reviewed": gate.get("reviewed", {}),  # runs of older versions lack them
        "changes": gate.get("changes", {}),
        "warnings": gate.get("warnings", []),
        "report": f"{report.uri}/{REPORT_FILE}" if report else None,
    }


def _kinds_of_defect(metrics_by_label: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Label, AUROC, test images and how many of them raise an alarm (None: of an older version) of each kind of defect.

    The worst found kind is the first.
    """
    kinds = [
        {
            "label": label,
            "auroc": metrics["auroc"],
            "images": (images := round(metrics["example_count"])),
            "found": None if metrics.get("recall") is None else round(metrics["recall"] * images),
        }
        for label, metrics in metrics_by_label.items()
        if metrics.get("auroc") is not None
    ]
    return sorted(kinds, key=lambda kind: (kind["auroc"], kind["label"]))


def _read(file: Path) -> dict[str, Any]:
    """A JSON document of an artifact; {} if it has been removed."""
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _image_counts(outputs: dict[str, Any]) -> dict[str, int]:
    return _read(Path(outputs["Examples"].uri, COUNTS_FILE)) if "Examples" in outputs else {}


def _model_record(outputs: dict[str, Any]) -> dict[str, Any]:
    model = outputs.get("Model")
    return _read(Path(path_utils.serving_model_path(model.uri), RECORD_FILE)) if model else {}


def _model_facts(record: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """Facts about the trained model and its training, by the model's record."""
    model_run = outputs.get("ModelRun")
    if not record or model_run is None:
        return {}
    return {
        "preset": record["trainer"]["preset"],
        "latent_dim": record["latent_dim"],
        "parameters": record["parameters"],
        "epochs": len(record["history"]["loss"]),
        "cross_fitted": bool(record.get("cross_fitted")),  # all images train and calibrate
        "training_s": round(model_run.custom_properties[SECONDS_PROPERTY].double_value, 2) or None,
    }


def pushed_to(artifact: Any) -> str:
    """The version's folder or URI of a PushedModel; empty if nothing was pushed, and for any other artifact."""
    return _text(artifact, PUSHED_DESTINATION)


def _text(artifact: Any, name: str) -> str:
    """A custom property; empty if it is absent (access by index would create it)."""
    found = artifact.custom_properties
    return str(found[name].string_value) if name in found else ""


def _outputs(store: Any, run: Any) -> dict[str, Any]:
    """The newest artifact of each type that the run produced or took from the cache."""
    executions = [execution.id for execution in store.get_executions_by_context(run.id)]
    events = store.get_events_by_execution_ids(executions) if executions else []
    ids = {event.artifact_id for event in events if event.type in (mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT)}
    artifacts = store.get_artifacts_by_id(list(ids)) if ids else []
    return {artifact.type: artifact for artifact in sorted(artifacts, key=lambda artifact: int(artifact.id))}
