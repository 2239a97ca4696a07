"""A component that runs again says what changed since it finished last."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

from pipeline.metadata.reruns import cause_of_rerun

FIRST = {
    "settings": json.dumps({"epochs": 5}),
    "custom_config": json.dumps({"source_fingerprint": "a", "seed": 1}),
    "data_fingerprint": "x",
}


class History:
    """The executions of one component in an ML Metadata store."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.executions: list[Any] = []

    def add(
        self, parameters: dict[str, str], *, reads: int, type_name: str = "Trainer", state: str = "COMPLETE"
    ) -> Any:
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name=type_name))
        execution = mlmd.Execution(type_id=type_id, last_known_state=mlmd.Execution.State.Value(state))
        for name, value in parameters.items():
            execution.custom_properties[name].string_value = value
        [number] = self.store.put_executions([execution])
        self.event(number, reads, mlmd.Event.INPUT, "examples")
        self.event(number, self.artifact(), mlmd.Event.OUTPUT, "model")
        self.executions = list(self.store.get_executions())
        return next(execution for execution in self.executions if execution.id == number)

    def artifact(self) -> int:
        type_id = self.store.put_artifact_type(mlmd.ArtifactType(name="Any"))
        [number] = self.store.put_artifacts([mlmd.Artifact(type_id=type_id, state=mlmd.Artifact.LIVE)])
        return int(number)

    def event(self, execution: int, artifact: int, kind: Any, key: str) -> None:
        path = mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key=key)])
        self.store.put_events([mlmd.Event(execution_id=execution, artifact_id=artifact, type=kind, path=path)])

    def cause(self, execution: Any) -> str:
        return cause_of_rerun(self.store, self.executions, execution)


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(str(tmp_path / "m.sqlite"))) as handle:
        yield History(handle.store)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"custom_config": json.dumps({"source_fingerprint": "b", "seed": 1})}, "source code"),
        ({"custom_config": json.dumps({"source_fingerprint": "b", "seed": 2}), "data_fingerprint": "y"}, "source code"),
        ({"data_fingerprint": "y", "settings": json.dumps({"epochs": 6})}, "images"),
        ({"settings": json.dumps({"epochs": 6})}, "configuration"),
        ({"custom_config": json.dumps({"seed": 1, "source_fingerprint": "a"})}, "options for Beam"),
    ],
)
def test_the_cause_is_found_in_the_parameters(history: History, changes: dict[str, str], cause: str) -> None:
    examples = history.artifact()
    history.add(FIRST, reads=examples)
    assert history.cause(history.add({**FIRST, **changes}, reads=examples)) == cause


def test_other_inputs_are_a_cause(history: History) -> None:
    history.add(FIRST, reads=history.artifact())
    assert history.cause(history.add(FIRST, reads=history.artifact())) == "inputs"


def test_a_component_that_moved_to_another_module_has_other_source_code(history: History) -> None:
    examples = history.artifact()
    history.add(FIRST, reads=examples, type_name="components.evaluator.Evaluator")
    moved = history.add(FIRST, reads=examples, type_name="components.evaluation.evaluator.Evaluator")
    assert history.cause(moved) == "source code"


def test_removed_results_are_a_cause(history: History) -> None:
    examples = history.artifact()
    history.add(FIRST, reads=examples)
    for artifact in history.store.get_artifacts():
        artifact.state = mlmd.Artifact.DELETED
        history.store.put_artifacts([artifact])
    assert history.cause(history.add(FIRST, reads=examples)) == "results removed"


def test_only_finished_executions_count(history: History) -> None:
    examples = history.artifact()
    assert history.cause(history.add({**FIRST, "data_fingerprint": "y"}, reads=examples, state="FAILED")) == ""
    assert history.cause(history.add(FIRST, reads=examples)) == ""
