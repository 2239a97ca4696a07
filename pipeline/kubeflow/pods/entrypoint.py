"""What each pod runs: TFX's own entrypoint, its input and output mended for open-source Kubeflow Pipelines.

Kubeflow's driver and launcher differ from the service that TFX's entrypoint was written for: artifact types
and integer properties get lost, extra properties appear, files are staged below /s3, /minio or /gcs, and a
property that is null stops the run. Tested against the sources of Kubeflow Pipelines 2; see docs/kubeflow.md.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.kubeflow.names import OVERRIDE_PREFIX, STAGING_ROOT_VARIABLE
from pipeline.metadata.measure import start_measuring
from runtime.imports import imported_for_good
from runtime.keras_flavour import use_keras_2

_STAGED_SCHEMES = {"s3://": "s3", "minio://": "minio", "gs://": "gcs"}
_KUBEFLOWS_OWN_PROPERTIES = ("display_name", "store_session_info")
_WRAPPERS = ("list", "struct")

Message = dict[str, Any]
"""A protobuf message in its JSON form."""


def staged_path(uri: str, staging_root: str = "/") -> str:
    """Where Kubeflow's launcher puts an artifact's files: `s3://bucket/x` -> `/s3/bucket/x`.

    Raises ValueError for a URI that it stages nowhere.
    """
    for scheme, folder in _STAGED_SCHEMES.items():
        if uri.startswith(scheme):
            return str(Path(staging_root, folder, uri.removeprefix(scheme)))
    raise ValueError(f"artifact {uri!r} is in no object store that Kubeflow stages ({', '.join(_STAGED_SCHEMES)})")


def mend_input(executor_input: Message, inputs_spec: Message, staging_root: str = "/") -> Message:
    """ExecutorInput as the launcher passes it -> as TFX's entrypoint expects it.

    Restores types, stages URIs, drops what Kubeflow added and optional artifacts that were never written, and
    applies overrides to the JSON properties that they name.
    """
    inputs = dict(executor_input.get("inputs", {}))
    artifacts = {}
    for key, artifact_list in inputs.get("artifacts", {}).items():
        spec = inputs_spec.get("artifacts", {}).get(key, {})
        mended = [_mend_artifact(a, spec.get("artifactType"), staging_root) for a in artifact_list["artifacts"]]
        if not (spec.get("isOptional") and all(_is_empty(a["uri"]) for a in mended)):
            artifacts[key] = {"artifacts": mended}
    inputs["artifacts"] = artifacts
    inputs["parameterValues"] = apply_overrides(inputs.get("parameterValues", {}), inputs_spec)
    outputs = dict(executor_input.get("outputs", {}))
    outputs["artifacts"] = {
        key: {"artifacts": [_mend_artifact(a, None, staging_root) for a in artifact_list["artifacts"]]}
        for key, artifact_list in outputs.get("artifacts", {}).items()
    }
    return {**executor_input, "inputs": inputs, "outputs": outputs}


def mend_output(executor_output: Message, executor_input: Message, staging_root: str = "/") -> Message:
    """ExecutorOutput as TFX wrote it -> as the launcher takes it.

    Staged paths become URIs again, also in properties, and properties that are null are left out.
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
        mended = []
        for artifact, original in zip(artifact_list["artifacts"], provisioned[key]["artifacts"], strict=True):
            properties = artifact.get("metadata", {}).items()
            metadata = {name: _known_uri(value, known) for name, value in properties if value is not None}
            mended.append({**artifact, "uri": original["uri"], "metadata": metadata})
        artifacts[key] = {"artifacts": mended}
    return {**executor_output, "artifacts": artifacts}


def _known_uri(value: Any, uri_of_staged_path: Message) -> Any:
    return uri_of_staged_path.get(value, value) if isinstance(value, str) else value


def apply_overrides(parameters: Message, inputs_spec: Message) -> Message:
    """Put each `override--property--path` into the JSON of its property; empty strings mean: as compiled."""
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


def _mend_artifact(artifact: Message, type_schema: Message | None, staging_root: str) -> Message:
    mended = {**artifact, "uri": staged_path(artifact["uri"], staging_root)}
    if type_schema:
        mended["type"] = type_schema
    metadata = {
        name: _unwrapped(value)
        for name, value in artifact.get("metadata", {}).items()
        if name not in _KUBEFLOWS_OWN_PROPERTIES
    }
    return {**mended, "metadata": metadata}


def _unwrapped(value: Any) -> Any:
    """ML Metadata holds no bare lists or mappings: Kubeflow writes {"list": [...]} and {"struct": {...}}."""
    if isinstance(value, dict) and len(value) == 1:
        [(kind, content)] = value.items()
        if kind in _WRAPPERS:
            return content
    return value


def _is_empty(path: str) -> bool:
    return not Path(path).exists() or not any(Path(path).iterdir())


def main(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Run one component; `arguments` are those that the stock compiler wrote into the package."""
    use_keras_2()
    with imported_for_good():
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor as stock

        from runtime import tfx_filesystem

    tfx_filesystem.register(environment)
    parsed, beam_arguments = stock._parse_flags(arguments)
    original: Message = json.loads(parsed.json_serialized_invocation_args)
    inputs_spec: Message = json.loads(parsed.json_serialized_inputs_spec_args or "{}")
    staging_root = environment.get(STAGING_ROOT_VARIABLE, "/")
    mended = mend_input(original, inputs_spec, staging_root)
    for artifact_list in mended["outputs"]["artifacts"].values():
        for artifact in artifact_list["artifacts"]:
            Path(artifact["uri"]).mkdir(parents=True, exist_ok=True)
    parsed.json_serialized_invocation_args = json.dumps(mended)
    measure = start_measuring()
    stock._run_executor(parsed, beam_arguments)
    measures = measure()
    output_file = Path(mended["outputs"]["outputFile"])
    written: Message = json.loads(output_file.read_text(encoding="utf-8"))
    for artifact_list in written.get("artifacts", {}).values():
        for artifact in artifact_list["artifacts"]:
            artifact["metadata"] = {**artifact.get("metadata", {}), **measures}
    output_file.write_text(json.dumps(mend_output(written, original, staging_root)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
