"""Simulates Kubeflow's launcher: downloads a pod's inputs, runs the component's command and uploads its outputs.

Follows the source of Kubeflow Pipelines 2.17 (backend/src/v2/component/launcher_v2.go).
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2  # type: ignore[import-untyped]

from pipeline.kubeflow.names import STAGING_ROOT_VARIABLE, Message
from pipeline.kubeflow.pods.entrypoint import staged_path
from pipeline.kubeflow.simulator.driver import LOGS_KEY
from pipeline.kubeflow.specification import RefusedError
from runtime.errors import UserError
from runtime.object_store import download, upload

_PASSED_ON = ("PYTHONPATH", "LANG")
_QUOTED_LINES = 15
_STAGING_FOLDER = "root"


class PodFailedError(UserError):
    """The component's command failed."""


def launch(
    container: Message, executor_input: Message, *, pod: Path, store: Any, variables: Mapping[str, str], log: Path
) -> Message:
    """Download, run, upload; returns the ExecutorOutput with the artifacts' final URIs and all parameters.

    `pod`: an empty folder that replaces the container's file system.

    Raises PodFailedError if the command fails, and RefusedError if Kubeflow could not read its output.
    """
    outputs = executor_input["outputs"]
    for artifact in _artifacts(executor_input["inputs"]):
        download(store, artifact["uri"], _staged(artifact, pod))
    for artifact in _artifacts(outputs):
        _staged(artifact, pod).parent.mkdir(parents=True, exist_ok=True)
    for parameter in outputs["parameters"].values():
        Path(parameter["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
    published = _staged(outputs["artifacts"][LOGS_KEY]["artifacts"][0], pod)
    _run(substitute(container, executor_input), _environment(container, pod, variables), pod, (log, published))
    written = _read_output(Path(outputs["outputFile"]))
    for key, parameter in outputs["parameters"].items():
        if key not in written["parameterValues"]:
            path = Path(parameter["outputFile"])
            if not path.exists():
                raise RefusedError(f"output parameter {key!r}: the component did not write {path.name}")
            written["parameterValues"][key] = path.read_text(encoding="utf-8")
    artifacts = {}
    for key, artifact_list in outputs["artifacts"].items():
        artifact = _merge(artifact_list["artifacts"][0], written["artifacts"].get(key, {}))
        upload(store, _staged(artifact, pod), artifact["uri"])
        artifacts[key] = artifact
    return {"parameterValues": written["parameterValues"], "artifacts": artifacts}


def substitute(container: Message, executor_input: Message) -> list[str]:
    """The command line with its placeholders replaced, `{{$}}` by the whole ExecutorInput."""
    replacements = {"{{$}}": json.dumps(executor_input)}
    for key, value in executor_input["inputs"]["parameterValues"].items():
        text = value if isinstance(value, str) else json.dumps(value)
        replacements[f"{{{{$.inputs.parameters['{key}']}}}}"] = text
    for key, parameter in executor_input["outputs"]["parameters"].items():
        replacements[f"{{{{$.outputs.parameters['{key}'].output_file}}}}"] = parameter["outputFile"]
    words = [*container.get("command", []), *container.get("args", [])]
    for placeholder, replacement in replacements.items():
        words = [word.replace(placeholder, replacement) for word in words]
    return words


def _run(command: list[str], environment: dict[str, str], pod: Path, logs: tuple[Path, Path]) -> None:
    """Run the command, with its output in both files, which are open before it starts, as in the real launcher."""
    log, _ = logs
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(path.open("wb")) for path in logs]
        with subprocess.Popen(
            command, cwd=pod, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                for file in files:
                    file.write(line)
                    file.flush()
    if status := process.returncode:
        last_lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_QUOTED_LINES:]
        raise PodFailedError("\n".join([f"exit status {status}; last lines of {log}:", *last_lines]))


def _environment(container: Message, pod: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """A pod's environment: the package's variables, `variables`, and few of this process's own."""
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    declared = {variable["name"]: variable["value"] for variable in container.get("env", [])}
    # Replaces the scratch volume, which is not mounted here.
    temporary = pod / "tmp"
    temporary.mkdir(exist_ok=True)
    return {
        **inherited,
        **declared,
        **variables,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOME": str(pod),
        "TMPDIR": str(temporary),
        STAGING_ROOT_VARIABLE: str(pod / _STAGING_FOLDER),
    }


def _read_output(path: Path) -> Message:
    if not path.exists():
        return {"parameterValues": {}, "artifacts": {}}
    message = pipeline_spec_pb2.ExecutorOutput()
    try:
        json_format.Parse(path.read_text(encoding="utf-8"), message)
    except json_format.ParseError as error:
        raise RefusedError(f"{path.name} is not a valid ExecutorOutput: {error}") from None
    return {"parameterValues": {}, "artifacts": {}, **json_format.MessageToDict(message)}


def _merge(provisioned: Message, written: Message) -> Message:
    """The provisioned artifact, updated with the URI and properties that the component reports."""
    reported = written.get("artifacts", [{}])[0]
    metadata = {**provisioned.get("metadata", {}), **reported.get("metadata", {})}
    return {**provisioned, "uri": reported.get("uri") or provisioned["uri"], "metadata": metadata}


def _staged(artifact: Message, pod: Path) -> Path:
    return Path(staged_path(artifact["uri"], str(pod / _STAGING_FOLDER)))


def _artifacts(side: Message) -> list[Message]:
    return [artifact for artifacts in side["artifacts"].values() for artifact in artifacts["artifacts"]]
