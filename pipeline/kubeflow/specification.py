"""Loads a compiled package, checks its pipeline specification, and converts the parameters of a run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2  # type: ignore[import-untyped]

from pipeline.kubeflow.names import ALWAYS, SCHEDULES, WHEN_PARAMETER, Message
from runtime.errors import UsageError

SCHEMA_VERSION: Final = "2.1.0"
_ARGO_NAME = re.compile(r"^[a-zA-Z0-9][-a-zA-Z0-9]*$")
_CONVERTERS: Final[dict[str, Any]] = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": float}
"""Python type of each parameter type; all others are written as JSON."""


class RefusedError(UsageError):
    """Kubeflow would refuse the package or fail to run it."""


def load_package(path: Path) -> Message:
    """The package's pipeline specification, after the checks of Kubeflow's API server; raises RefusedError."""
    spec, _ = load_documents(path)
    return spec


def load_documents(path: Path) -> tuple[Message, Message]:
    """Like `load_package`, with the second document; {} if there is none."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedError(f"{path}: is not valid YAML: {error}") from None
    if not documents or not isinstance(documents[0], dict) or "root" not in documents[0]:
        raise RefusedError(f"{path}: is not a compiled package; create one with: autoencoder compile")
    spec: Message = documents[0]
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise RefusedError(f"{path}: is not a valid pipeline specification: {error}") from None
    _check(spec)
    return spec, documents[1] if len(documents) > 1 else {}


def convert_parameters(spec: Message, given: Mapping[str, str]) -> dict[str, Any]:
    """`{"epochs": "20"}` -> `{"epochs": 20}`, as the package declares its parameters.

    Raises RefusedError for an undeclared name or a value of the wrong type.
    """
    declared = declared_parameters(spec)
    for name in given:
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise RefusedError(f"--param {name}: the package has no such parameter; it has: {known}")
    return {name: _convert(name, text, declared[name]["parameterType"]) for name, text in given.items()}


def scheduled_parameters(spec: Message, given: Mapping[str, str]) -> dict[str, Any]:
    """`convert_parameters` for a scheduled run, which fails if its model is refused, unless the package says never."""
    by_default = declared_parameters(spec).get(WHEN_PARAMETER, {}).get("defaultValue")
    return convert_parameters(spec, {WHEN_PARAMETER: ALWAYS, **given} if by_default == SCHEDULES else given)


def declared_parameters(spec: Message) -> Message:
    """The definition of each parameter that a run can set."""
    return dict(spec["root"].get("inputDefinitions", {}).get("parameters", {}))


def _convert(name: str, text: str, parameter_type: str) -> Any:
    try:
        return _CONVERTERS.get(parameter_type, json.loads)(text)
    except ValueError:
        raise RefusedError(f"--param {name}={text}: must be of type {parameter_type}") from None


def _check(spec: Message) -> None:
    version = spec.get("schemaVersion")
    if version != SCHEMA_VERSION:
        raise RefusedError(f"schemaVersion {version!r}: Kubeflow Pipelines 2 accepts only {SCHEMA_VERSION}")
    tasks = spec["root"]["dag"]["tasks"]
    for name, task in tasks.items():
        if not _ARGO_NAME.match(name):
            raise RefusedError(f"task {name!r}: Argo allows only letters, digits and hyphens")
        for producer in _producers(task):
            if producer not in tasks:
                raise RefusedError(f"task {name!r} reads from {producer!r}, which is not a task")
            if producer not in task.get("dependentTasks", []):
                raise RefusedError(f"task {name!r} reads from {producer!r} but does not wait for it")
        executor = spec["deploymentSpec"]["executors"][spec["components"][name]["executorLabel"]]
        if "container" not in executor:
            raise RefusedError(f"task {name!r} is a {', '.join(executor)}, not a container")


def _producers(task: Message) -> set[str]:
    inputs = task.get("inputs", {})
    sources = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
    found = (source.get("taskOutputParameter") or source.get("taskOutputArtifact") for source in sources)
    return {source["producerTask"] for source in found if source}
