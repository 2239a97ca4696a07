"""Reads the results of past runs from ML Metadata."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.utils import path_utils

from schema.artifacts import (
    COUNTS_FILE,
    GATE_FILE,
    NOT_PUSHED_BECAUSE,
    RECORD_FILE,
    REPORT_FILE,
    REPORT_TYPE,
    SECONDS_PROPERTY,
)

_PIPELINE_CONTEXT = "pipeline"
_RUN_CONTEXT = "pipeline_run"
_NODE_CONTEXT = "node"
_DESTINATION = "pushed_destination"
_NO_VERDICT: dict[str, Any] = {
    "blessed": False,
    "pushed": None,
    "not_pushed_because": None,
    "metrics": {},
    "thresholds": [],
    "model_run": None,
    "images": {},
    "model": {},
    "report": None,
}


@dataclass(frozen=True)
class PastRun:
    """One run; `verdict` is blessed, refused or incomplete, `mean_error` None if the Evaluator did not finish.

    `failed_in`: the component whose failure ended an incomplete run, if any.
    """

    run_id: str
    started_ms: int
    seconds: float
    verdict: str
    mean_error: float | None
    pushed: str | None
    failed_in: str | None


@dataclass(frozen=True)
class BlessedModel:
    """The folders of a SavedModel, of its analysis, and of the statistics of its images."""

    path: str
    analysis: str
    statistics: str | None


def latest_blessed(connection: Any, pipeline: str) -> BlessedModel | None:
    """The pipeline's latest blessed model; None if there is none."""
    with metadata.Metadata(connection) as handle:
        store = handle.store
        blessings = [
            artifact
            for artifact in _artifacts_of(store, pipeline, "ModelBlessing")
            if artifact.custom_properties["blessed"].int_value == 1
        ]
        if not blessings:
            return None
        latest = max(blessings, key=lambda artifact: int(artifact.id))
        execution = store.get_events_by_artifact_ids([latest.id])[0].execution_id
        ids = _artifacts_by_key(store, execution)
        model, analysis = (store.get_artifacts_by_id([ids[key]])[0].uri for key in ("model", "analysis"))
        measured = store.get_events_by_artifact_ids([ids["analysis"]])[0].execution_id
        examples = _artifacts_by_key(store, measured)["examples"]
        return BlessedModel(path_utils.serving_model_path(model), analysis, _statistics_of(store, examples))


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
        pushed = [a for a in _artifacts_of(handle.store, pipeline, "PushedModel") if pushed_to(a)]
        latest = max(pushed, key=lambda artifact: int(artifact.id), default=None)
        return pushed_to(latest).rpartition("/")[0] if latest else None


def last_durations(connection: Any, pipeline: str) -> dict[str, float]:
    """Component -> seconds of its latest execution in `pipeline` that was not cached."""
    with metadata.Metadata(connection) as handle:
        store = handle.store
        durations = {}
        for context in store.get_contexts_by_type(_NODE_CONTEXT):
            owner, _, name = context.name.rpartition(".")
            if owner != pipeline:
                continue
            ran = [
                e for e in store.get_executions_by_context(context.id) if e.last_known_state == mlmd.Execution.COMPLETE
            ]
            if ran:
                latest = max(ran, key=lambda e: int(e.id))
                durations[name] = (latest.last_update_time_since_epoch - latest.create_time_since_epoch) / 1000
        return durations


def no_verdict() -> dict[str, Any]:
    """The verdict of a run that did not finish."""
    return dict(_NO_VERDICT)


def verdict_of_latest(connection: Any, pipeline: str) -> dict[str, Any]:
    """Verdict, metrics, thresholds, image counts and `model_run` (the folder of the logs) of the newest run."""
    with metadata.Metadata(connection) as handle:
        return _verdict(handle.store, runs_of(handle.store, pipeline)[0])


def image_counts_of_latest(connection: Any, pipeline: str) -> dict[str, int]:
    """Split (and `rejected`, `duplicates`) -> images of the newest run, whose ImageExampleGen has finished."""
    with metadata.Metadata(connection) as handle:
        return _image_counts(handle.store, runs_of(handle.store, pipeline)[0])


def past_runs(connection: Any) -> dict[str, list[PastRun]]:
    """Pipeline -> all its runs, newest first."""
    with metadata.Metadata(connection) as handle:
        store = handle.store
        pipelines = sorted(context.name for context in store.get_contexts_by_type(_PIPELINE_CONTEXT))
        return {name: [_past_run(store, run) for run in runs_of(store, name)] for name in pipelines}


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
    verdict = _verdict(store, run)
    state = "incomplete" if not verdict["metrics"] else "blessed" if verdict["blessed"] else "refused"
    ended_ms = max((e.last_update_time_since_epoch for e in executions), default=run.create_time_since_epoch)
    return PastRun(
        run_id=run.name,
        started_ms=run.create_time_since_epoch,
        seconds=(ended_ms - run.create_time_since_epoch) / 1000,
        verdict=state,
        mean_error=verdict["metrics"].get("mean_error"),
        pushed=verdict["pushed"],
        failed_in=None if verdict["metrics"] else _failed_in(store, executions),
    )


def _failed_in(store: Any, executions: list[Any]) -> str | None:
    failed = [e for e in executions if e.last_known_state == mlmd.Execution.FAILED]
    return node_of(store, max(failed, key=lambda e: int(e.id))) if failed else None


def node_of(store: Any, execution: Any) -> str:
    """The name of an execution's component."""
    names = [c.name for c in store.get_contexts_by_execution(execution.id) if c.type == _NODE_CONTEXT]
    return names[0].rpartition(".")[2] if names else str(execution.type)


def _verdict(store: Any, run: Any) -> dict[str, Any]:
    evaluation = _output(store, run, "ModelEvaluation")
    gate = _read(Path(evaluation.uri, GATE_FILE)) if evaluation else {}
    if not gate:
        return dict(_NO_VERDICT)
    pushed = _output(store, run, "PushedModel")
    model_run = _output(store, run, "ModelRun")
    report = _output(store, run, REPORT_TYPE)
    return {
        "blessed": gate["blessed"],
        "pushed": (pushed_to(pushed) or None) if pushed else None,
        "not_pushed_because": (_text(pushed, NOT_PUSHED_BECAUSE) or None) if pushed else None,
        "metrics": gate["metrics"],
        "thresholds": gate["thresholds"],
        "model_run": model_run.uri if model_run else None,
        "images": _image_counts(store, run),
        "model": _model_facts(store, run),
        "report": f"{report.uri}/{REPORT_FILE}" if report else None,
    }


def _read(file: Path) -> dict[str, Any]:
    """A JSON document of an artifact; {} if it has been removed."""
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _image_counts(store: Any, run: Any) -> dict[str, int]:
    examples = _output(store, run, "Examples")
    counts: dict[str, int] = _read(Path(examples.uri, COUNTS_FILE)) if examples else {}
    return counts


def _model_facts(store: Any, run: Any) -> dict[str, Any]:
    """Facts about the trained model and its training."""
    model, model_run = _output(store, run, "Model"), _output(store, run, "ModelRun")
    if model is None or model_run is None:
        return {}
    record = _read(Path(path_utils.serving_model_path(model.uri), RECORD_FILE))
    return record and {
        "preset": record["trainer"]["preset"],
        "latent_dim": record["latent_dim"],
        "parameters": record["parameters"],
        "epochs": len(record["history"]["loss"]),
        "training_s": round(model_run.custom_properties[SECONDS_PROPERTY].double_value, 2) or None,
    }


def pushed_to(artifact: Any) -> str:
    """The version's folder or URI of a PushedModel; empty if nothing was pushed, and for any other artifact."""
    return _text(artifact, _DESTINATION)


def _text(artifact: Any, name: str) -> str:
    """A custom property; empty if it is absent (access by index would create it)."""
    found = artifact.custom_properties
    return str(found[name].string_value) if name in found else ""


def _output(store: Any, run: Any, type_name: str) -> Any:
    """The run's artifact of a type, produced or cached."""
    outputs = (mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
    ids = [e.id for e in store.get_executions_by_context(run.id)]
    events = store.get_events_by_execution_ids(ids) if ids else []
    wanted = {event.artifact_id for event in events if event.type in outputs}
    found = [a for a in _artifacts(store, type_name) if a.id in wanted]
    return max(found, key=lambda a: int(a.id)) if found else None


def _artifacts(store: Any, type_name: str) -> list[Any]:
    known = {artifact_type.name for artifact_type in store.get_artifact_types()}
    return list(store.get_artifacts_by_type(type_name)) if type_name in known else []
