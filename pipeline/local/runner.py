"""TFX's local runner, node by node, telling what happens to each and stopping cleanly at the first failure."""

import datetime
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler import compiler, constants
from tfx.dsl.components.common.resolver import Resolver
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils

from pipeline.metadata.history import node_of, pushed_to
from pipeline.metadata.measure import start_measuring

_LOG = logging.getLogger(__name__)
RAN, CACHED, FAILED, SKIPPED = "ran", "cached", "failed", "skipped"


@dataclass
class ComponentOutcome:
    """What happened to one component."""

    name: str
    state: str
    seconds: float
    error: BaseException | None = None


Listener = Callable[[str, ComponentOutcome | None], None]
"""Called with a component's name before it starts (None) and after it has ended (its outcome)."""


def run_pipeline(
    pipeline: tfx_pipeline.Pipeline,
    connection: Any,
    listen: Listener,
    check_after: Mapping[str, Callable[[], None]] = MappingProxyType({}),
) -> list[ComponentOutcome]:
    """Launch every node in order, as TFX's LocalDagRunner does; after a failure the rest are skipped.

    `check_after`: component -> what to call when it has ended; if that raises, the component has failed.
    `connection` (ML Metadata's ConnectionConfig) stays out of the compiled pipeline, since it may hold a password.
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
            _forget_missing(handle.store, known.id)
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
            if _launch(ir, node.pipeline_node, deployment, connection):
                outcome.state = CACHED
            check_after.get(name, lambda: None)()
        except Exception as error:  # every executor's failure ends here, and is reported with its own message
            outcome.state, outcome.error = FAILED, error
        outcome.seconds = time.monotonic() - started
        outcomes.append(outcome)
        listen(name, outcome)
    return outcomes


def _launch(ir: Any, node: Any, deployment: Any, connection: Any) -> bool:
    """Run one node; whether its results came from an earlier run."""
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
        if node.node_info.type.name == Resolver.__module__ + "." + Resolver.__name__:
            return _found_the_same_as_before(execution, handle.store)
        if execution.last_known_state == mlmd.Execution.CACHED:
            return True
        _note(measure(), execution, handle.store)
        return False


def _note(measures: dict[str, float], execution: Any, store: Any) -> None:
    """Write measures on the artifacts of an execution, before anything reads these: caching compares properties."""
    events = store.get_events_by_execution_ids([execution.id])
    artifacts = store.get_artifacts_by_id([event.artifact_id for event in events if event.type == mlmd.Event.OUTPUT])
    for artifact in artifacts:
        for name, value in measures.items():
            artifact.custom_properties[name].double_value = value
    if artifacts:
        store.put_artifacts(artifacts)


def _found_the_same_as_before(execution: Any, store: Any) -> bool:
    """A Resolver asks anew in every run; it counts as cached if it found what it found the time before."""
    # Other Resolvers share the execution's type; only executions of the same node share its "node" context.
    [node] = [c for c in store.get_contexts_by_execution(execution.id) if c.type == constants.NODE_CONTEXT_TYPE_NAME]
    earlier = [e for e in store.get_executions_by_context(node.id) if e.id < execution.id]
    if not earlier:
        return False
    previous = max(earlier, key=lambda e: int(e.id))
    found: dict[int, set[int]] = {execution.id: set(), previous.id: set()}
    for event in store.get_events_by_execution_ids(list(found)):
        found[event.execution_id].add(event.artifact_id)
    return found[execution.id] == found[previous.id]


def _abandon_unfinished(store: Any, pipeline_context: int, pipeline_root: Path) -> None:
    """Mark executions that a killed run left as running, and delete what they had written."""
    running = [
        e
        for e in store.get_executions_by_context(pipeline_context)
        if e.last_known_state in (mlmd.Execution.RUNNING, mlmd.Execution.NEW)
    ]
    for execution in running:
        execution.last_known_state = mlmd.Execution.FAILED
        for folder in pipeline_root.glob(f"*/*/{execution.id}"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in pipeline_root.glob(f"*/.system/*/{execution.id}"):
            shutil.rmtree(folder, ignore_errors=True)
        _LOG.warning(
            "an earlier run ended in the middle of %s: interrupted, killed, or out of memory. What it had written is "
            "removed.",
            node_of(store, execution),
            extra={"notice": True},
        )
    if running:
        store.put_executions(running)


def _set_aside(pipeline_root: Path) -> None:
    """Move away what a lost store had recorded: new executions are numbered from 1 again, and would write into it."""
    if not pipeline_root.is_dir() or not any(pipeline_root.iterdir()):
        return
    aside = pipeline_root.with_name(f"{pipeline_root.name}-without-metadata")
    shutil.rmtree(aside, ignore_errors=True)
    pipeline_root.rename(aside)
    _LOG.warning(
        "the metadata store knows nothing of %s: every component runs anew. What was there is in %s, which you may "
        "remove.",
        *(pipeline_root, aside),
        extra={"notice": True},
    )


def _forget_missing(store: Any, pipeline_context: int) -> None:
    """Mark artifacts whose files are gone as deleted, so that a component is run again instead of taken as cached.

    A pushed model is gone when its version is no longer in the destination.
    """
    missing = [
        artifact
        for artifact in store.get_artifacts_by_context(pipeline_context)
        if artifact.state == mlmd.Artifact.LIVE and not all(map(_exists, _places_of(artifact)))
    ]
    for artifact in missing:
        artifact.state = mlmd.Artifact.DELETED
    if missing:
        store.put_artifacts(missing)


def _places_of(artifact: Any) -> list[str]:
    return [place for place in (artifact.uri, pushed_to(artifact)) if place]


def _exists(place: str) -> bool:
    return "://" in place or Path(place).exists()
