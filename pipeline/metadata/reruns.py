"""Why a component ran again: what differs from its previous finished execution."""

import json
from collections.abc import Iterator
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.metadata.history import newest

_SOURCE_PARAMETERS = ("source", "source_fingerprint", "schema_text")


def cause_of_rerun(store: Any, executions: list[Any], execution: Any) -> str:
    """What changed since the component's previous finished execution; empty if there is none.

    `executions`: those of the component. Of several causes, the first in the order below is given.
    """
    finished = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)
    previous = newest(e for e in executions if e.id < execution.id and e.last_known_state in finished)
    if previous is None:
        return ""
    changed = {name for name, _ in set(_parameters(execution)) ^ set(_parameters(previous))}
    if previous.type_id != execution.type_id or changed.intersection(_SOURCE_PARAMETERS):
        return "source code"
    if "data_fingerprint" in changed:
        return "images"
    if changed:
        return "configuration"
    if _artifacts(store, execution, mlmd.Event.INPUT) != _artifacts(store, previous, mlmd.Event.INPUT):
        return "inputs"
    outputs = [artifact for _, artifact in _artifacts(store, previous, mlmd.Event.OUTPUT)]
    if any(artifact.state != mlmd.Artifact.LIVE for artifact in store.get_artifacts_by_id(outputs)):
        return "results removed"
    return "options for Beam"


def _parameters(execution: Any) -> Iterator[tuple[str, str]]:
    """The parameters of an execution, those within JSON objects one by one."""
    for name, value in execution.custom_properties.items():
        try:
            fields = json.loads(value.string_value)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            yield from ((key, json.dumps(field, sort_keys=True)) for key, field in fields.items())
        else:
            yield name, str(value)


def _artifacts(store: Any, execution: Any, event_type: int) -> set[tuple[str, int]]:
    """(key, id) of the artifacts that an execution read or wrote."""
    events = store.get_events_by_execution_ids([execution.id])
    return {(event.path.steps[0].key, event.artifact_id) for event in events if event.type == event_type}
