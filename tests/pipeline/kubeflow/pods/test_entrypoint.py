"""The entrypoint converts between Kubeflow's launcher and TFX's entrypoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.kubeflow.pods.entrypoint import StagingError, adapt_input, adapt_output, apply_overrides, staged_path

LOGS = {"artifacts": [{"uri": "s3://bucket/run/executor-logs-0", "type": {"schemaTitle": "system.Artifact"}}]}
MODEL_TYPE = {"instanceSchema": "title: tfx.Model\ntype: object\n"}


def _input(metadata: dict[str, Any] | None = None, uri: str = "s3://bucket/run/model") -> dict[str, Any]:
    artifact = {"name": "7", "uri": uri, "type": {"instanceSchema": ""}, "metadata": metadata or {}}
    return {"inputs": {"artifacts": {"model": {"artifacts": [artifact]}}}, "outputs": {}}


def _inputs_spec(**more: Any) -> dict[str, Any]:
    return {"artifacts": {"model": {"artifactType": MODEL_TYPE, **more}}}


def _adapted_model(executor_input: dict[str, Any], staging_root: str = "/") -> dict[str, Any]:
    adapted = adapt_input(executor_input, _inputs_spec(), {}, staging_root)
    artifact: dict[str, Any] = adapted["inputs"]["artifacts"]["model"]["artifacts"][0]
    return artifact


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://bucket/a/b", "/s3/bucket/a/b"),
        ("minio://bucket/a", "/minio/bucket/a"),
        ("gs://bucket/a", "/gcs/bucket/a"),
    ],
)
def test_uris_become_the_launchers_paths(uri: str, path: str) -> None:
    assert staged_path(uri) == path


def test_a_uri_that_kubeflow_does_not_stage_is_refused() -> None:
    with pytest.raises(StagingError, match="'hdfs://x': Kubeflow cannot stage it"):
        staged_path("hdfs://x")


def test_the_artifact_type_is_restored_from_the_component() -> None:
    assert _adapted_model(_input())["type"] == MODEL_TYPE


def test_outputs_get_the_type_that_the_component_declares_and_kubeflows_own_are_left_alone() -> None:
    provisioned = {"artifacts": [{"uri": "s3://bucket/run/model", "type": {"schemaTitle": "system.Artifact"}}]}
    executor_input = {"inputs": {}, "outputs": {"artifacts": {"model": provisioned, "executor-logs": LOGS}}}
    outputs = adapt_input(executor_input, {}, {"model": MODEL_TYPE})["outputs"]["artifacts"]
    assert outputs == {
        "model": {"artifacts": [{"uri": "/s3/bucket/run/model", "type": MODEL_TYPE, "metadata": {}}]},
    }


def test_inputs_are_read_from_the_staged_path() -> None:
    assert _adapted_model(_input(), "/pod")["uri"] == "/pod/s3/bucket/run/model"


def test_kubeflows_own_properties_are_dropped() -> None:
    metadata = {"display_name": "model", "store_session_info": "{}", "span": 3.0}
    assert _adapted_model(_input(metadata))["metadata"] == {"span": 3.0}


def test_lists_and_mappings_lose_their_wrapper() -> None:
    metadata = {"a": {"list": [1, 2]}, "b": {"struct": {"x": 1}}, "c": {"other": 1}}
    assert _adapted_model(_input(metadata))["metadata"] == {"a": [1, 2], "b": {"x": 1}, "c": {"other": 1}}


def test_an_optional_artifact_that_was_never_written_is_dropped(tmp_path: Path) -> None:
    optional = _inputs_spec(isOptional=True)
    assert adapt_input(_input(), optional, {}, str(tmp_path))["inputs"]["artifacts"] == {}
    written = tmp_path / "s3/bucket/run/model/Format-Serving"
    written.mkdir(parents=True)
    assert "model" in adapt_input(_input(), optional, {}, str(tmp_path))["inputs"]["artifacts"]


def test_a_required_artifact_stays_even_if_empty(tmp_path: Path) -> None:
    assert "model" in adapt_input(_input(), _inputs_spec(), {}, str(tmp_path))["inputs"]["artifacts"]


def test_an_override_is_written_into_the_json_of_its_property() -> None:
    parameters = {
        "custom_config": json.dumps({"trainer": {"epochs": 5, "loss": "mse"}}),
        "override--custom_config--trainer--epochs": 20.0,
    }
    types = {"parameters": {"override--custom_config--trainer--epochs": {"parameterType": "NUMBER_INTEGER"}}}
    result = apply_overrides(parameters, types)
    assert list(result) == ["custom_config"]
    trainer = json.loads(result["custom_config"])["trainer"]
    assert trainer == {"epochs": 20, "loss": "mse"}
    assert isinstance(trainer["epochs"], int)


def test_an_empty_override_changes_nothing() -> None:
    parameters = {"settings": '{"path": "/data"}', "override--settings--path": ""}
    types = {"parameters": {"override--settings--path": {"parameterType": "STRING"}}}
    assert apply_overrides(parameters, types) == {"settings": '{"path": "/data"}'}


def test_outputs_get_their_uris_back_and_lose_null_properties() -> None:
    executor_input = {
        "inputs": _input()["inputs"],
        "outputs": {"artifacts": {"blessing": {"artifacts": [{"uri": "s3://bucket/run/blessing"}]}}},
    }
    written = {"uri": "/s3/bucket/run/blessing", "metadata": {"model": "/s3/bucket/run/model", "x": None}}
    adapted = adapt_output({"artifacts": {"blessing": {"artifacts": [written]}}}, executor_input)
    assert adapted["artifacts"]["blessing"]["artifacts"] == [
        {"uri": "s3://bucket/run/blessing", "metadata": {"model": "s3://bucket/run/model"}}
    ]
