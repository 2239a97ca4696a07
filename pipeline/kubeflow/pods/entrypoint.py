"""Runs a component in its pod: TFX's own entrypoint, with input and output adapted to open-source Kubeflow Pipelines.

Kubeflow's driver and launcher differ from the service for which TFX's entrypoint was written: they know no TFX types
and turn integers into floats, add properties and outputs of their own (`executor-logs`, a file that the launcher has
open), stage files below /s3, /minio or /gcs, and fail on null properties. See docs/kubeflow.md for what this was tested
against.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.kubeflow.names import (
    OUTPUTS_SPEC_FLAG,
    OVERRIDE_PREFIX,
    STAGING_FOLDERS,
    STAGING_ROOT_VARIABLE,
    Message,
)
from pipeline.metadata.measure import start_measuring
from runtime.errors import UserError
from runtime.imports import imported_for_good
from runtime.keras_flavour import use_keras_2

_PROPERTIES_OF_KUBEFLOW = ("display_name", "store_session_info")


class StagingError(UserError):
    """An artifact is in a place that Kubeflow's launcher does not stage."""


def staged_path(uri: str, staging_root: str = "/") -> str:
    """The folder to which Kubeflow's launcher downloads an artifact: `s3://bucket/x` -> `/s3/bucket/x`.

    Raises StagingError for any other scheme.
    """
    for scheme, folder in STAGING_FOLDERS.items():
        if uri.startswith(scheme):
            return str(Path(staging_root, folder, uri.removeprefix(scheme)))
    raise StagingError(
        f"artifact {uri!r}: Kubeflow cannot stage it; compile with a --root that starts with "
        f"{', '.join(STAGING_FOLDERS)}"
    )


def adapt_input(
    executor_input: Message, inputs_spec: Message, output_types: Message, staging_root: str = "/"
) -> Message:
    """Convert the launcher's ExecutorInput to the one that TFX's entrypoint expects.

    Restores artifact types, replaces URIs by staged paths, drops Kubeflow's own properties and outputs and optional
    artifacts that were never written, and applies overrides.

    `output_types`: the schema of the type of each output that the component declares.
    """
    inputs = dict(executor_input.get("inputs", {}))
    artifacts = {}
    for key, artifact_list in inputs.get("artifacts", {}).items():
        spec = inputs_spec.get("artifacts", {}).get(key, {})
        adapted = [_adapt_artifact(a, spec.get("artifactType"), staging_root) for a in artifact_list["artifacts"]]
        if not (spec.get("isOptional") and all(_is_empty(a["uri"]) for a in adapted)):
            artifacts[key] = {"artifacts": adapted}
    inputs["artifacts"] = artifacts
    inputs["parameterValues"] = apply_overrides(inputs.get("parameterValues", {}), inputs_spec)
    outputs = dict(executor_input.get("outputs", {}))
    outputs["artifacts"] = {
        key: {"artifacts": [_adapt_artifact(a, output_types[key], staging_root) for a in artifact_list["artifacts"]]}
        for key, artifact_list in outputs.get("artifacts", {}).items()
        if key in output_types
    }
    return {**executor_input, "inputs": inputs, "outputs": outputs}


def adapt_output(executor_output: Message, executor_input: Message, staging_root: str = "/") -> Message:
    """Convert TFX's ExecutorOutput to the one that the launcher expects.

    Replaces staged paths by URIs, also in properties, and drops null properties.
    """
    provisioned = executor_input.get("outputs", {}).get("artifacts", {})
    known = {
        staged_path(artifact["uri"], staging_root): artifact["uri"]
        for artifacts in (executor_input.get("inputs", {}).get("artifacts", {}), provisioned)
        for artifact_list in artifacts.values()
        for artifact in artifact_list["artifacts"]
    }
    artifacts = {}
    for key, artifact_list in executor_output.get("artifacts", {}).items():
        adapted = []
        for artifact, original in zip(artifact_list["artifacts"], provisioned[key]["artifacts"], strict=True):
            properties = artifact.get("metadata", {}).items()
            metadata = {name: _known_uri(value, known) for name, value in properties if value is not None}
            adapted.append({**artifact, "uri": original["uri"], "metadata": metadata})
        artifacts[key] = {"artifacts": adapted}
    return {**executor_output, "artifacts": artifacts}


def _known_uri(value: Any, uri_of_staged_path: Message) -> Any:
    return uri_of_staged_path.get(value, value) if isinstance(value, str) else value


def apply_overrides(parameters: Message, inputs_spec: Message) -> Message:
    """Write each `override--property--path` into the JSON of its property; an empty string keeps the compiled value."""
    overrides = {key: value for key, value in parameters.items() if key.startswith(OVERRIDE_PREFIX)}
    result = {key: value for key, value in parameters.items() if key not in overrides}
    for key, value in overrides.items():
        if value == "":
            continue
        if inputs_spec["parameters"][key].get("parameterType") == "NUMBER_INTEGER":
            value = int(value)
        name, *path = key.removeprefix(OVERRIDE_PREFIX).split("--")
        document = json.loads(result[name])
        section = document
        for part in path[:-1]:
            section = section[part]
        section[path[-1]] = value
        result[name] = json.dumps(document)
    return result


def _adapt_artifact(artifact: Message, type_schema: Message | None, staging_root: str) -> Message:
    adapted = {**artifact, "uri": staged_path(artifact["uri"], staging_root)}
    if type_schema:
        adapted["type"] = type_schema
    metadata = {
        name: _unwrapped(value)
        for name, value in artifact.get("metadata", {}).items()
        if name not in _PROPERTIES_OF_KUBEFLOW
    }
    return {**adapted, "metadata": metadata}


def _unwrapped(value: Any) -> Any:
    """The content of {"list": [...]} or {"struct": {...}}, as Kubeflow wraps lists and mappings for ML Metadata."""
    if isinstance(value, dict) and value.keys() in ({"list"}, {"struct"}):
        [value] = value.values()
    return value


def _take_output_types(arguments: list[str]) -> tuple[Message, list[str]]:
    """The value of our own flag, and the arguments without it."""
    place = arguments.index(OUTPUTS_SPEC_FLAG)
    return json.loads(arguments[place + 1]), arguments[:place] + arguments[place + 2 :]


def _is_empty(path: str) -> bool:
    return not Path(path).exists() or not any(Path(path).iterdir())


def main(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Run one component with the arguments that TFX's compiler wrote into the package."""
    use_keras_2()
    with imported_for_good():
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor as stock

        from runtime import tfx_filesystem

    logging.basicConfig()
    logging.getLogger("trainer").setLevel(logging.INFO)  # every epoch, in the pod's log
    tfx_filesystem.register(environment)
    output_types, arguments = _take_output_types(arguments)
    parsed, beam_arguments = stock._parse_flags(arguments)
    original: Message = json.loads(parsed.json_serialized_invocation_args)
    inputs_spec: Message = json.loads(parsed.json_serialized_inputs_spec_args or "{}")
    staging_root = environment.get(STAGING_ROOT_VARIABLE, "/")
    adapted = adapt_input(original, inputs_spec, output_types, staging_root)
    for artifact_list in adapted["outputs"]["artifacts"].values():
        for artifact in artifact_list["artifacts"]:
            Path(artifact["uri"]).mkdir(parents=True, exist_ok=True)
    parsed.json_serialized_invocation_args = json.dumps(adapted)
    measure = start_measuring()
    stock._run_executor(parsed, beam_arguments)
    measures = measure()
    output_file = Path(adapted["outputs"]["outputFile"])
    written: Message = json.loads(output_file.read_text(encoding="utf-8"))
    for artifact_list in written.get("artifacts", {}).values():
        for artifact in artifact_list["artifacts"]:
            artifact["metadata"] = {**artifact.get("metadata", {}), **measures}
    output_file.write_text(json.dumps(adapt_output(written, original, staging_root)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
