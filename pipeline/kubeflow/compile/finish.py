"""Turns the specification that TFX's compiler produces into one that open-source Kubeflow Pipelines 2 can run.

The specification is kfp's pipeline_spec.proto in its JSON form.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2  # type: ignore[import-untyped]

from images.reading import reading_of
from pipeline.configuration.configuration import Configuration
from pipeline.kubeflow.compile.verdict_tasks import add_verdict_tasks
from pipeline.kubeflow.names import (
    FAIL_TASK,
    INPUTS_SPEC_FLAG,
    KUBEFLOW_TYPE,
    OUTPUTS_SPEC_FLAG,
    OVERRIDE_PREFIX,
    SCRATCH_FOLDER,
    TRAINING_JOB,
    Message,
)
from pipeline.kubeflow.pods import data_version
from pipeline.kubeflow.tfjob import training_job

EXAMPLE_GEN, TRAINER, TUNER = "ImageExampleGen", "Trainer", "Tuner"
DATA_VERSION = "data-version"
_FINGERPRINT = "fingerprint"
_ALL_ATTEMPTS_S = 7 * 24 * 3600
"""The most that all attempts of a task may take together.

Argo counts from the start of the first pod, retries nothing without this limit, and ends pods that exceed it.
"""


def finish(spec: Message, configuration: Configuration, *, root: str, gpus: int) -> Message:
    """Fix what Kubeflow would refuse, and add resources, retries, parameters, and the tasks before and after TFX's.

    Raises google.protobuf.json_format.ParseError if the result is not a valid specification.
    """
    spec = _hyphenate_names(spec)
    _strip_stock_suffix(spec)
    _add_data_version(spec, configuration)
    if configuration.kubeflow.tfjob:
        _train_in_a_job(spec, configuration, f"{configuration.kubeflow.tfjob.mount_path}/{configuration.name}")
    _add_runtime_parameters(spec, configuration)
    _describe_artifacts_to_entrypoint(spec)
    _use_kubeflow_types(spec)
    add_verdict_tasks(spec, configuration, dict(containers(spec))[EXAMPLE_GEN]["image"])
    retries = configuration.kubeflow.retries
    policy = {
        "maxRetryCount": retries.count,
        "backoffDuration": f"{retries.backoff_s}s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": f"{_ALL_ATTEMPTS_S}s",
    }
    for name, container in containers(spec):
        container["resources"] = _resources(configuration, name, gpus)
        container["env"] = _environment(configuration, name)
        if retries.count and name != FAIL_TASK:
            spec["root"]["dag"]["tasks"][name]["retryPolicy"] = policy
    spec["defaultPipelineRoot"] = root
    # A round trip through kfp's messages, so that a misspelt field fails here and not on the cluster.
    json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    return dict(json_format.MessageToDict(json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())))


def containers(spec: Message) -> Iterator[tuple[str, Message]]:
    """Name and container of each task."""
    for name, component in spec["components"].items():
        yield name, spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]


def mark_optional(spec: Message, nodes: Iterable[Any]) -> None:
    """Mark the input artifacts that a component can run without, for the entrypoint."""
    for node in nodes:
        for key, artifact in spec["components"][node.id].get("inputDefinitions", {}).get("artifacts", {}).items():
            if node.spec.INPUTS[key].optional:
                artifact["isOptional"] = True


def _hyphenate_names(spec: Message) -> Message:
    """Replace underscores in the names of tasks, which Argo does not allow."""
    text = json.dumps(spec)
    for name in spec["components"]:
        if "_" in name:
            text = text.replace(json.dumps(name), json.dumps(name.replace("_", "-")))
    return dict(json.loads(text))


def _strip_stock_suffix(spec: Message) -> None:
    """Correct the producers of parameters: TFX's compiler writes `X_task` for the task X."""
    tasks = spec["root"]["dag"]["tasks"]
    for task in tasks.values():
        for value in task.get("inputs", {}).get("parameters", {}).values():
            producer = value.get("taskOutputParameter", {})
            if producer and producer["producerTask"] not in tasks:
                producer["producerTask"] = producer["producerTask"].removesuffix("_task")


def _add_data_version(spec: Message, configuration: Configuration) -> None:
    """Add the task that computes the data's version in every run, and pass it to ImageExampleGen and Trainer."""
    example_gen = spec["deploymentSpec"]["executors"][spec["components"][EXAMPLE_GEN]["executorLabel"]]
    names = ("settings", "reading", "data_root", "data_version")
    spec["components"][DATA_VERSION] = {
        "executorLabel": f"{DATA_VERSION}_executor",
        "inputDefinitions": {"parameters": {name: {"parameterType": "STRING"} for name in names}},
        "outputDefinitions": {"parameters": {_FINGERPRINT: {"parameterType": "STRING"}}},
    }
    flags = [
        word for name in names for word in (f"--{name.replace('_', '-')}", f"{{{{$.inputs.parameters['{name}']}}}}")
    ]
    spec["deploymentSpec"]["executors"][f"{DATA_VERSION}_executor"] = {
        "container": {
            "image": example_gen["container"]["image"],
            "command": ["python", "-m", data_version.__name__],
            "args": [*flags, "--output", f"{{{{$.outputs.parameters['{_FINGERPRINT}'].output_file}}}}"],
        }
    }
    spec["root"]["dag"]["tasks"][DATA_VERSION] = {
        "taskInfo": {"name": DATA_VERSION},
        "componentRef": {"name": DATA_VERSION},
        "inputs": {
            "parameters": {
                "settings": {"runtimeValue": {"constant": configuration.data.model_dump_json()}},
                "reading": {"runtimeValue": {"constant": reading_of(configuration.image).model_dump_json()}},
                "data_root": {"componentInputParameter": "data_root"},
                "data_version": {"componentInputParameter": "data_version"},
            }
        },
    }
    version = {"taskOutputParameter": {"producerTask": DATA_VERSION, "outputParameterKey": _FINGERPRINT}}
    _set_parameter(spec, EXAMPLE_GEN, "data_fingerprint", "STRING", version)
    _set_parameter(spec, TRAINER, f"{OVERRIDE_PREFIX}custom_config--data_fingerprint", "STRING", version)


def _add_runtime_parameters(spec: Message, configuration: Configuration) -> None:
    """Add the parameters that a run can override without compiling again: `--param epochs=20`, if it is set."""
    parameters: dict[str, tuple[str, str | int]] = {
        "data_root": ("STRING", configuration.data.path or ""),
        "data_version": ("STRING", ""),
    }
    if (epochs := configuration.trainer.epochs) is not None:
        parameters["epochs"] = ("NUMBER_INTEGER", epochs)
    overrides = {"data_root": (EXAMPLE_GEN, "settings--path"), "epochs": (TRAINER, "custom_config--trainer--epochs")}
    definitions = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for name, (kind, default) in parameters.items():
        definitions[name] = {"parameterType": kind, "defaultValue": default, "isOptional": True}
        if name in overrides:
            task, path = overrides[name]
            _set_parameter(spec, task, OVERRIDE_PREFIX + path, kind, {"componentInputParameter": name})


def _set_parameter(spec: Message, name: str, key: str, type_: str, source: Message) -> None:
    """Add an input parameter to a task, or change the source of an existing one."""
    inputs = spec["components"][name].setdefault("inputDefinitions", {})
    inputs.setdefault("parameters", {})[key] = {"parameterType": type_}
    task = spec["root"]["dag"]["tasks"][name]
    task.setdefault("inputs", {}).setdefault("parameters", {})[key] = source
    producer = source.get("taskOutputParameter", {}).get("producerTask")
    if producer:
        task["dependentTasks"] = sorted({*task.get("dependentTasks", []), producer})


def _train_in_a_job(spec: Message, configuration: Configuration, folder: str) -> None:
    """Replace the Trainer's function by one that creates a TFJob, and add the job's manifest."""
    from pipeline.kubeflow.pods.trainer import run_fn  # loads the Kubernetes client

    parameters = spec["root"]["dag"]["tasks"][TRAINER]["inputs"]["parameters"]
    image = dict(containers(spec))[TRAINER]["image"]
    custom_config = json.loads(parameters["custom_config"]["runtimeValue"]["constant"])
    custom_config[TRAINING_JOB] = {"folder": folder, "manifest": training_job(configuration, image)}
    parameters["custom_config"]["runtimeValue"]["constant"] = json.dumps(custom_config, sort_keys=True)
    parameters["run_fn"]["runtimeValue"]["constant"] = f"{run_fn.__module__}.{run_fn.__qualname__}"


def _environment(configuration: Configuration, name: str) -> list[Message]:
    variables = dict(configuration.kubeflow.variables)
    if configuration.kubeflow.pod(name).scratch:
        variables.setdefault("TMPDIR", SCRATCH_FOLDER)
    return [{"name": variable, "value": value} for variable, value in sorted(variables.items())]


def _resources(configuration: Configuration, name: str, gpus: int) -> Message:
    pod = configuration.kubeflow.pod(name)
    asked = {
        "cpuRequest": pod.cpu,
        "memoryRequest": pod.memory_gb,
        "cpuLimit": pod.cpu_limit,
        "memoryLimit": pod.memory_limit_gb,
    }
    resources: Message = {field: value for field, value in asked.items() if value is not None}
    if name in (TRAINER, TUNER) and gpus:
        resources["accelerator"] = {"type": configuration.kubeflow.gpu_resource, "count": str(gpus)}
    return resources


def _describe_artifacts_to_entrypoint(spec: Message) -> None:
    """Pass the TFX types of all inputs and outputs, and the inputs that were added here, as arguments."""
    for name, container in containers(spec):
        arguments = container.get("args", [])
        if INPUTS_SPEC_FLAG in arguments:
            component = spec["components"][name]
            definitions = component.get("inputDefinitions", {})
            arguments[arguments.index(INPUTS_SPEC_FLAG) + 1] = json.dumps(definitions, sort_keys=True)
            outputs = component.get("outputDefinitions", {}).get("artifacts", {})
            types = {key: artifact["artifactType"] for key, artifact in outputs.items()}
            arguments += [OUTPUTS_SPEC_FLAG, json.dumps(types, sort_keys=True)]


def _use_kubeflow_types(spec: Message) -> None:
    """Replace TFX's artifact types, which releases of Kubeflow Pipelines without ML Metadata refuse."""
    for component in spec["components"].values():
        for side in ("inputDefinitions", "outputDefinitions"):
            for artifact in component.get(side, {}).get("artifacts", {}).values():
                artifact["artifactType"] = dict(KUBEFLOW_TYPE)
