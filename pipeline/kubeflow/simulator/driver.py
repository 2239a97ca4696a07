"""Simulates Kubeflow's driver: resolves a task's inputs, provisions its outputs and computes its cache key.

Follows the sources of Kubeflow Pipelines 2.17 (backend/src/v2/driver, metadata, cacheutils), as a cluster with the
default settings runs them: PUBLISH_LOGS is true.
"""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

from pipeline.kubeflow.names import Message
from pipeline.kubeflow.specification import RefusedError, convert_parameters, declared_parameters
from runtime.errors import UsageError

LOGS_KEY = "executor-logs"
_LOGS_TYPE = {"schemaTitle": "system.Artifact"}


class NotSimulatedError(UsageError):
    """The package uses a feature that the simulator lacks."""


class Records:
    """What Kubeflow keeps between runs, in a JSON file: artifacts by id, outputs of executions by cache key.

    The outputs of an execution are `artifacts` (key -> id) and `parameters` (key -> value).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"artifacts": {}, "cache": {}}
        self.artifacts: dict[str, Message] = document["artifacts"]
        self.cache: dict[str, Message] = document["cache"]

    def save(self) -> None:
        document = {"artifacts": self.artifacts, "cache": self.cache}
        self._path.write_text(json.dumps(document, indent=1), encoding="utf-8")

    def add_artifact(self, key: str, artifact: Message) -> str:
        """Store as ML Metadata would; returns the new id."""
        metadata = {name: recorded_property(name, value) for name, value in artifact.get("metadata", {}).items()}
        metadata |= {"display_name": key, "store_session_info": "{}"}
        artifact_id = str(len(self.artifacts) + 1)
        self.artifacts[artifact_id] = {"uri": artifact["uri"], "metadata": metadata}
        return artifact_id


def recorded_property(name: str, value: Any) -> Any:
    """A property as ML Metadata returns it: numbers become floats, lists and mappings are wrapped.

    Raises RefusedError for null, which Kubeflow's launcher cannot record.
    """
    if value is None:
        raise RefusedError(
            f"property {name!r} is null: Kubeflow's launcher would fail with 'unknown/unsupported value type'"
        )
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, list):
        return {"list": value}
    if isinstance(value, dict):
        return {"struct": value}
    return value


def resolve_inputs(task: Message, run_parameters: Message, finished: Message, records: Records) -> Message:
    """The ExecutorInput's inputs; like the real driver, this returns artifacts without their type."""
    inputs = task.get("inputs", {})
    parameters = {
        key: _parameter(source, run_parameters, finished) for key, source in inputs.get("parameters", {}).items()
    }
    artifacts = {}
    for key, source in inputs.get("artifacts", {}).items():
        output = source["taskOutputArtifact"]
        artifact_id = finished[output["producerTask"]]["artifacts"][output["outputArtifactKey"]]
        record = records.artifacts[artifact_id]
        artifacts[key] = {"artifacts": [{"name": artifact_id, "type": {"instanceSchema": ""}, **record}]}
    return {"parameterValues": parameters, "artifacts": artifacts}


def _parameter(source: Message, run_parameters: Message, finished: Message) -> Any:
    if "componentInputParameter" in source:
        return run_parameters[source["componentInputParameter"]]
    if "taskOutputParameter" in source:
        output = source["taskOutputParameter"]
        return finished[output["producerTask"]]["parameters"][output["outputParameterKey"]]
    if "constant" in source.get("runtimeValue", {}):
        return source["runtimeValue"]["constant"]
    raise NotSimulatedError(f"the simulator does not support parameters from {', '.join(sorted(source))}")


def provision_outputs(component: Message, folder_uri: str, pod: Path, attempt: int) -> Message:
    """The ExecutorInput's outputs: a new URI for each artifact and for the pod's log, a file for each parameter."""
    definitions = component.get("outputDefinitions", {})
    salt = uuid.uuid4()
    types = {key: artifact["artifactType"] for key, artifact in definitions.get("artifacts", {}).items()}
    names = {key: key for key in types} | {LOGS_KEY: f"{LOGS_KEY}-{attempt - 1}"}
    return {
        "artifacts": {
            key: {"artifacts": [{"uri": f"{folder_uri}/{salt}/{names[key]}", "type": type_}]}
            for key, type_ in {**types, LOGS_KEY: _LOGS_TYPE}.items()
        },
        "parameters": {key: {"outputFile": str(pod / "outputs" / key)} for key in definitions.get("parameters", {})},
        "outputFile": str(pod / "kfp_outputs" / "output_metadata.json"),
    }


def cache_key(pipeline: str, inputs: Message, component: Message, container: Message, pod_patch: Message) -> str:
    """SHA-256 over the parts of Kubeflow's cache key: artifact ids, values, output types, image, command and claims.

    Resources, environment variables and the rest of the second document are not part of it.
    """
    volumes = pod_patch.get("volumes", [])
    definitions = component.get("outputDefinitions", {})
    key = {
        "pipelineName": pipeline,
        "inputArtifactNames": {
            name: [artifact["name"] for artifact in artifacts["artifacts"]]
            for name, artifacts in inputs["artifacts"].items()
        },
        "inputParameterValues": inputs["parameterValues"],
        "outputArtifactsSpec": {
            key: artifact["artifactType"] for key, artifact in definitions.get("artifacts", {}).items()
        },
        "outputParametersSpec": definitions.get("parameters", {}),
        "image": container["image"],
        "cmdArgs": [*container.get("command", []), *container.get("args", [])],
        "pvcNames": sorted(
            {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
        ),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def run_parameters(spec: Message, given: dict[str, str]) -> Message:
    """The package's defaults, overridden by the given parameters.

    Raises RefusedError for an undeclared name, a value of the wrong type, or a missing value.
    """
    declared = declared_parameters(spec)
    defaults = {name: d["defaultValue"] for name, d in declared.items() if "defaultValue" in d}
    values = {**defaults, **convert_parameters(spec, given)}
    missing = sorted(set(declared) - set(values))
    if missing:
        raise RefusedError(f"--param {missing[0]}=... is required: the parameter has no default")
    return values
