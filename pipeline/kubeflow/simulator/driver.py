"""The rehearsal's driver: what Kubeflow Pipelines 2 decides before a pod starts, and what it forgets.

Follows the driver's and the metadata client's sources (backend/src/v2/driver, metadata, cacheutils).
"""

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import UsageError

Message = dict[str, Any]
"""A protobuf message in its JSON form."""


class NotPlayedError(UsageError):
    """The package uses something that the rehearsal does not play."""


class RefusedError(UsageError):
    """Kubeflow would refuse or fail this; the message says where and why."""


@dataclass
class Outputs:
    """What one execution left: artifact ids by key, and parameter values."""

    artifacts: dict[str, str]
    parameters: dict[str, Any]


@dataclass
class Records:
    """What Kubeflow remembers between runs: artifacts by id, executions by cache key; a JSON file."""

    path: Path
    artifacts: dict[str, Message] = field(default_factory=dict)
    cache: dict[str, Message] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Records":
        if not path.exists():
            return cls(path)
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(path, values["artifacts"], values["cache"])

    def save(self) -> None:
        document = {"artifacts": self.artifacts, "cache": self.cache}
        self.path.write_text(json.dumps(document, indent=1), encoding="utf-8")

    def add_artifact(self, key: str, artifact: Message) -> str:
        """Store as ML Metadata would; returns the new id."""
        metadata = {name: remembered(name, value) for name, value in artifact.get("metadata", {}).items()}
        metadata |= {"display_name": key, "store_session_info": "{}"}
        artifact_id = str(len(self.artifacts) + 1)
        self.artifacts[artifact_id] = {"uri": artifact["uri"], "metadata": metadata}
        return artifact_id


def remembered(name: str, value: Any) -> Any:
    """A property after its way through ML Metadata: numbers lose their type, lists and mappings get wrapped.

    Raises RefusedError for null, which Kubeflow's launcher cannot record.
    """
    if value is None:
        raise RefusedError(f"property {name!r} is null: the launcher fails with 'unknown/unsupported value type'")
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, list):
        return {"list": value}
    if isinstance(value, dict):
        return {"struct": value}
    return value


def resolve_inputs(
    task: Message, run_parameters: dict[str, Any], finished: dict[str, Outputs], records: Records
) -> Message:
    """The ExecutorInput's inputs; artifacts come back without their type, as from the real driver."""
    inputs = task.get("inputs", {})
    parameters = {
        key: _parameter(source, run_parameters, finished) for key, source in inputs.get("parameters", {}).items()
    }
    artifacts = {}
    for key, source in inputs.get("artifacts", {}).items():
        output = source["taskOutputArtifact"]
        artifact_id = finished[output["producerTask"]].artifacts[output["outputArtifactKey"]]
        record = records.artifacts[artifact_id]
        artifacts[key] = {"artifacts": [{"name": artifact_id, "type": {"instanceSchema": ""}, **record}]}
    return {"parameterValues": parameters, "artifacts": artifacts}


def _parameter(source: Message, run_parameters: dict[str, Any], finished: dict[str, Outputs]) -> Any:
    if "componentInputParameter" in source:
        return run_parameters[source["componentInputParameter"]]
    if "taskOutputParameter" in source:
        output = source["taskOutputParameter"]
        return finished[output["producerTask"]].parameters[output["outputParameterKey"]]
    if "constant" in source.get("runtimeValue", {}):
        return source["runtimeValue"]["constant"]
    raise NotPlayedError(f"a parameter from {sorted(source)} is not played")


def provision_outputs(component: Message, folder_uri: str, pod: Path) -> Message:
    """The ExecutorInput's outputs: a new URI for each artifact, a file for each parameter."""
    definitions = component.get("outputDefinitions", {})
    salt = uuid.uuid4()
    return {
        "artifacts": {
            key: {"artifacts": [{"uri": f"{folder_uri}/{salt}/{key}", "type": artifact["artifactType"]}]}
            for key, artifact in definitions.get("artifacts", {}).items()
        },
        "parameters": {key: {"outputFile": str(pod / "outputs" / key)} for key in definitions.get("parameters", {})},
        "outputFile": str(pod / "kfp_outputs" / "output_metadata.json"),
    }


def cache_key(inputs: Message, component: Message, container: Message) -> str:
    """SHA-256 over what Kubeflow's cache key holds: artifact ids, values, output types, image and command."""
    definitions = component.get("outputDefinitions", {})
    key = {
        "inputArtifactNames": {
            name: [artifact["name"] for artifact in artifacts["artifacts"]]
            for name, artifacts in inputs["artifacts"].items()
        },
        "inputParameterValues": inputs["parameterValues"],
        "outputArtifactsSpec": definitions.get("artifacts", {}),
        "outputParametersSpec": definitions.get("parameters", {}),
        "image": container["image"],
        "cmdArgs": [*container.get("command", []), *container.get("args", [])],
        "env": container.get("env", []),
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def run_parameters(spec: Message, given: dict[str, str]) -> dict[str, Any]:
    """The run's parameters: given ones, converted as the API server would, over the package's defaults.

    Raises RefusedError for an unknown name, a value of the wrong type, or one that is missing.
    """
    definitions = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    unknown = sorted(set(given) - set(definitions))
    if unknown:
        raise RefusedError(f"--param {unknown[0]}: the package has {', '.join(sorted(definitions)) or 'no parameters'}")
    values = {name: d["defaultValue"] for name, d in definitions.items() if "defaultValue" in d}
    for name, text in given.items():
        values[name] = typed(name, text, definitions[name]["parameterType"])
    missing = sorted(set(definitions) - set(values))
    if missing:
        raise RefusedError(f"--param {missing[0]}=... is missing: it has no default")
    return values


def typed(name: str, text: str, parameter_type: str) -> Any:
    """The value of `--param name=text`; raises RefusedError if it is not of that type."""
    converters: dict[str, Any] = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}
    try:
        return converters.get(parameter_type, json.loads)(text)
    except ValueError:
        raise RefusedError(f"--param {name}={text}: must be of type {parameter_type}") from None
