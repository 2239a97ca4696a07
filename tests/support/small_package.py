"""A package of two real commands, as `autoencoder compile` would write it."""

from pathlib import Path
from typing import Any

import yaml

WRITE = """
import json, os, pathlib, sys
given = json.loads(sys.argv[1])
[artifact] = given["outputs"]["artifacts"]["data"]["artifacts"]
folder = pathlib.Path(os.environ["KUBEFLOW_STAGING_ROOT"], artifact["uri"].replace("s3://", "s3/"))
folder.mkdir(parents=True)
(folder / "value.txt").write_text(sys.argv[2])
output = pathlib.Path(given["outputs"]["outputFile"])
output.parent.mkdir(parents=True, exist_ok=True)
metadata = {"rows": 3, "known": True, "names": ["a"]}
output.write_text(json.dumps({"artifacts": {"data": {"artifacts": [{"metadata": metadata}]}}}))
"""
READ = """
import json, os, pathlib, sys
given = json.loads(sys.argv[1])
[artifact] = given["inputs"]["artifacts"]["data"]["artifacts"]
folder = pathlib.Path(os.environ["KUBEFLOW_STAGING_ROOT"], artifact["uri"].replace("s3://", "s3/"))
text = (folder / "value.txt").read_text()
answer = {"type": artifact["type"], "metadata": artifact["metadata"], "text": text}
output = pathlib.Path(given["outputs"]["parameters"]["answer"]["outputFile"])
output.write_text(json.dumps(answer))
"""


def small_package() -> dict[str, Any]:
    """`write` makes an artifact from the parameter `text`; `read` reports what arrives of it."""
    data = {"data": {"artifactType": {"instanceSchema": "title: tfx.Examples\n"}}}
    text = {"text": {"parameterType": "STRING"}}
    return {
        "pipelineInfo": {"name": "small"},
        "schemaVersion": "2.1.0",
        "defaultPipelineRoot": "s3://bucket/root",
        "components": {
            "write": {
                "executorLabel": "write",
                "inputDefinitions": {"parameters": text},
                "outputDefinitions": {"artifacts": data},
            },
            "read": {
                "executorLabel": "read",
                "inputDefinitions": {"artifacts": data},
                "outputDefinitions": {"parameters": {"answer": {"parameterType": "STRING"}}},
            },
        },
        "deploymentSpec": {
            "executors": {
                "write": {"container": _container(WRITE, "{{$}}", "{{$.inputs.parameters['text']}}")},
                "read": {"container": _container(READ, "{{$}}")},
            }
        },
        "root": {
            "inputDefinitions": {"parameters": {"text": {"parameterType": "STRING", "defaultValue": "one"}}},
            "dag": {
                "tasks": {
                    "read": _task(
                        "read",
                        {
                            "artifacts": {
                                "data": {
                                    "taskOutputArtifact": {
                                        "producerTask": "write",
                                        "outputArtifactKey": "data",
                                    }
                                }
                            }
                        },
                        ["write"],
                    ),
                    "write": _task("write", {"parameters": {"text": {"componentInputParameter": "text"}}}, []),
                }
            },
        },
    }


def _container(code: str, *arguments: str) -> dict[str, Any]:
    return {"image": "image", "command": ["python", "-c", code], "args": list(arguments)}


def _task(name: str, inputs: dict[str, Any], dependent_tasks: list[str]) -> dict[str, Any]:
    return {
        "taskInfo": {"name": name},
        "componentRef": {"name": name},
        "cachingOptions": {"enableCache": True},
        "inputs": inputs,
        "dependentTasks": dependent_tasks,
    }


def write_package(package: dict[str, Any], folder: Path, *platform: dict[str, Any]) -> Path:
    """A file with the package and, if given, its second document."""
    path = folder / "package.yaml"
    path.write_text(yaml.safe_dump_all([package, *platform]), encoding="utf-8")
    return path
