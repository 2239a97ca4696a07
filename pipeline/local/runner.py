"""Runs a pipeline as TFX's local runner does, reports every component, and stops at the first failure."""

import datetime
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import compiler, constants
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils

from pipeline.errors import raise_if_interrupted
from pipeline.metadata.history import newest, node_of, pushed_to
from pipeline.metadata.measure import start_measuring
from pipeline.metadata.reruns import cause_of_rerun
from pipeline.states import CACHED, FAILED, RAN, SKIPPED

_LOG = logging.getLogger(__name__)


@dataclass
class ComponentOutcome:
    """What happened to one component."""

    name: str
    state: str
    seconds: float
    error: BaseException | None = None
    changed: str = ""
    """If it ran although it had finished before: what changed, e.g. `source code`."""


Listener = Callable[[str, ComponentOutcome | None], None]
"""Called with a component's name and None before it starts, and with its outcome after it has ended."""


def run_pipeline(
    pipeline: tfx_pipeline.Pipeline,
    connection: Any,
    listen: Listener,
) -> list[ComponentOutcome]:
    """Launch every node in order, as TFX's LocalDagRunner does; after a failure the rest are skipped.

    `connection` (ML Metadata's ConnectionConfig) is not part of the compiled pipeline, since it may hold a password.
    """
    ir = compiler.Compiler().compile(pipeline)
    run_id = datetime.datetime.now(tz=datetime.timezone.utc).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
    runtime_parameter_utils.substitute_runtime_parameter(ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    deployment = runner_utils.extract_local_deployment_config(ir)
    with metadata.Metadata(connection) as handle:
        info = pipeline.pipeline_info
        known = handle.store.get_context_by_type_and_name(constants.PIPELINE_CONTEXT_TYPE_NAME, info.pipeline_name)
        if known:
            _abandon_unfinished(handle.store, known.id, Path(info.pipeline_root))
            _mark_missing_deleted(handle.store, known.id)
        else:
            _set_aside(Path(info.pipeline_root))

    outcomes: list[ComponentOutcome] = []
    for node in ir.nodes:
        name = node.pipeline_node.node_info.id
        if outcomes and outcomes[-1].state in (FAILED, SKIPPED):
            outcomes.append(ComponentOutcome(name, SKIPPED, 0.0))
            continue
        listen(name, None)
        started = time.monotonic()
        outcome = ComponentOutcome(name, RAN, 0.0)
        try:
            outcome.state, outcome.changed = _launch(ir, node.pipeline_node, deployment, connection)
        except Exception as error:  # whatever an executor raises is reported
            raise_if_interrupted()
            outcome.state, outcome.error = FAILED, error
        outcome.seconds = time.monotonic() - started
        outcomes.append(outcome)
        listen(name, outcome)
    return outcomes


def _launch(ir: Any, node: Any, deployment: Any, connection: Any) -> tuple[str, str]:
    """Run one node: (RAN or CACHED, what changed if it ran again)."""
    name = node.node_info.id
    measure = start_measuring()
    execution_info = launcher.Launcher(
        pipeline_node=node,
        mlmd_connection=metadata.Metadata(connection),
        pipeline_info=ir.pipeline_info,
        pipeline_runtime_spec=ir.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, name),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
    ).launch()
    with metadata.Metadata(connection) as handle:
        [execution] = handle.store.get_executions_by_id([execution_info.execution_id])
        if execution.last_known_state == mlmd.Execution.FAILED:
            raise RuntimeError(f"{name} could not find its inputs in the metadata store; see the log")
        if execution.last_known_state == mlmd.Execution.CACHED:
            return CACHED, ""
        contexts = handle.store.get_contexts_by_execution(execution.id)
        [context] = [c for c in contexts if c.type == constants.NODE_CONTEXT_TYPE_NAME]
        executions = handle.store.get_executions_by_context(context.id)  # also those under an earlier type name
        if node.node_info.type.name == Resolver.__module__ + "." + Resolver.__name__:
            return CACHED if _found_the_same(execution, executions, handle.store) else RAN, ""
        _record(measure(), execution, handle.store)
        return RAN, cause_of_rerun(handle.store, executions, execution)


def _record(measures: dict[str, float], execution: Any, store: Any) -> None:
    """Store measures with an execution's artifacts, before a component reads them: the cache compares properties."""
    events = store.get_events_by_execution_ids([execution.id])
    artifacts = store.get_artifacts_by_id([event.artifact_id for event in events if event.type == mlmd.Event.OUTPUT])
    for artifact in artifacts:
        for name, value in measures.items():
            artifact.custom_properties[name].double_value = value
    if artifacts:
        store.put_artifacts(artifacts)


def _found_the_same(execution: Any, executions: list[Any], store: Any) -> bool:
    """Whether a Resolver, which queries the store in every run, found the same artifacts as the time before."""
    previous = newest(e for e in executions if e.id < execution.id)
    if previous is None:
        return False
    events = [store.get_events_by_execution_ids([e.id]) for e in (execution, previous)]
    found, found_before = ({event.artifact_id for event in each} for each in events)
    return found == found_before


def _abandon_unfinished(store: Any, pipeline_context: int, pipeline_root: Path) -> None:
    """Mark the executions of a killed run as failed, and delete their output."""
    running = [
        e
        for e in store.get_executions_by_context(pipeline_context)
        if e.last_known_state in (mlmd.Execution.RUNNING, mlmd.Execution.NEW)
    ]
    for execution in running:
        execution.last_known_state = mlmd.Execution.FAILED
        for pattern in (f"*/*/{execution.id}", f"*/.system/*/{execution.id}"):
            for folder in pipeline_root.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)
        _LOG.warning(
            "an earlier run ended in the middle of %s: it was interrupted or killed, or ran out of memory. Its partial "
            "output has been removed.",
            node_of(store, execution),
            extra={"notice": True},
        )
    if running:
        store.put_executions(running)


def _set_aside(pipeline_root: Path) -> None:
    """Move the artifacts of a lost store away: new executions are numbered from 1 and would overwrite them."""
    if not pipeline_root.is_dir() or not any(pipeline_root.iterdir()):
        return
    aside = pipeline_root.with_name(f"{pipeline_root.name}-without-metadata")
    shutil.rmtree(aside, ignore_errors=True)
    pipeline_root.rename(aside)
    _LOG.warning(
        "the metadata store has no record of %s: every component runs again. The old artifacts are in %s, which you "
        "may remove.",
        *(pipeline_root, aside),
        extra={"notice": True},
    )


def _mark_missing_deleted(store: Any, pipeline_context: int) -> None:
    """Mark artifacts whose files were removed as deleted, so that their components run again.

    For a pushed model, its version in the destination counts as well.
    """
    missing = [
        artifact
        for artifact in store.get_artifacts_by_context(pipeline_context)
        if artifact.state == mlmd.Artifact.LIVE
        and not all("://" in place or Path(place).exists() for place in (artifact.uri, pushed_to(artifact)) if place)
    ]
    for artifact in missing:
        artifact.state = mlmd.Artifact.DELETED
    if missing:
        store.put_artifacts(missing)
