"""The finishing pass: what TFX compiles -> a specification that open-source Kubeflow Pipelines 2 runs.

Everything here works on the specification as nested dictionaries with the field names of its JSON form
(kfp's pipeline_spec.proto); `Specification` is such a dictionary.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2  # type: ignore[import-untyped]

from pipeline.configuration.configuration import Configuration
from pipeline.kubeflow.names import (
    DATA_VERSION_MODULE,
    INPUTS_SPEC_FLAG,
    OVERRIDE_PREFIX,
    SCRATCH_FOLDER,
    TRAIN_IN_A_JOB,
    TRAINING_JOB,
)
from pipeline.kubeflow.tfjob import training_job

Specification = dict[str, Any]

EXAMPLE_GEN, TRAINER, TUNER = "ImageExampleGen", "Trainer", "Tuner"
DATA_VERSION = "data-version"
_FINGERPRINT = "fingerprint"
_STOCK_SUFFIX = "_task"


@dataclass(frozen=True)
class RuntimeParameter:
    """What a run may set anew without compiling: `--param epochs=20`."""

    name: str
    type: str
    default: str | int
    overrides: tuple[tuple[str, str], ...]
    """(task, override) pairs that receive it."""


def runtime_parameters(configuration: Configuration) -> list[RuntimeParameter]:
    """The package's parameters, with the configuration's values as defaults."""
    return [
        RuntimeParameter("data_root", "STRING", configuration.data.path or "", ((EXAMPLE_GEN, "settings--path"),)),
        RuntimeParameter("data_version", "STRING", "", ()),
        RuntimeParameter(
            "epochs",
            "NUMBER_INTEGER",
            configuration.trainer.epochs,
            ((TRAINER, "custom_config--trainer--epochs"),),
        ),
    ]


def finish(spec: Specification, configuration: Configuration, *, root: str, gpus: int) -> Specification:
    """Mend what the stock compiler leaves unfit, and add what it has no means to say.

    Raises google.protobuf.json_format.ParseError if the result were no valid specification.
    """
    spec = _hyphenate_names(spec)
    _strip_stock_suffix(spec)
    _add_data_version(spec, configuration)
    if configuration.kubeflow.tfjob:
        _train_in_a_job(spec, configuration, configuration.kubeflow.tfjob.mount_path)
    _add_runtime_parameters(spec, runtime_parameters(configuration))
    for name, container in containers(spec):
        container["resources"] = _resources(configuration, name, gpus)
        container["env"] = _environment(configuration, name)
        _retry(spec["root"]["dag"]["tasks"][name], configuration)
    _rewrite_inputs_spec(spec)
    spec["defaultPipelineRoot"] = root
    return _checked(spec)


def containers(spec: Specification) -> Iterator[tuple[str, Specification]]:
    """Each task's name with the container that it runs."""
    for name, component in spec["components"].items():
        yield name, spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]


def mark_optional(spec: Specification, optional_inputs: dict[str, list[str]]) -> None:
    """Note which input artifacts (task -> keys) a component can do without, for the entrypoint."""
    for name, keys in optional_inputs.items():
        artifacts = spec["components"][name].get("inputDefinitions", {}).get("artifacts", {})
        for key in keys:
            if key in artifacts:
                artifacts[key]["isOptional"] = True


def _hyphenate_names(spec: Specification) -> Specification:
    """Argo, beneath Kubeflow, allows no underscore in a task's name."""
    text = json.dumps(spec)
    for name in spec["components"]:
        if "_" in name:
            text = text.replace(json.dumps(name), json.dumps(name.replace("_", "-")))
    hyphenated: Specification = json.loads(text)
    return hyphenated


def _strip_stock_suffix(spec: Specification) -> None:
    """The stock compiler names the producer of a parameter `X_task`, though the task is called X."""
    tasks = spec["root"]["dag"]["tasks"]
    for task in tasks.values():
        for value in task.get("inputs", {}).get("parameters", {}).values():
            producer = value.get("taskOutputParameter", {})
            if producer and producer["producerTask"] not in tasks:
                producer["producerTask"] = producer["producerTask"].removesuffix(_STOCK_SUFFIX)


def _add_data_version(spec: Specification, configuration: Configuration) -> None:
    """A task that looks at the data in every run; who reads or records them gets its answer."""
    example_gen = spec["deploymentSpec"]["executors"][spec["components"][EXAMPLE_GEN]["executorLabel"]]
    names = ("settings", "data_root", "data_version")
    spec["components"][DATA_VERSION] = {
        "executorLabel": f"{DATA_VERSION}_executor",
        "inputDefinitions": {"parameters": {name: {"parameterType": "STRING"} for name in names}},
        "outputDefinitions": {"parameters": {_FINGERPRINT: {"parameterType": "STRING"}}},
    }
    flags = [word for name in names for word in (_flag(name), f"{{{{$.inputs.parameters['{name}']}}}}")]
    spec["deploymentSpec"]["executors"][f"{DATA_VERSION}_executor"] = {
        "container": {
            "image": example_gen["container"]["image"],
            "command": ["python", "-m", DATA_VERSION_MODULE],
            "args": [*flags, "--output", f"{{{{$.outputs.parameters['{_FINGERPRINT}'].output_file}}}}"],
        }
    }
    spec["root"]["dag"]["tasks"][DATA_VERSION] = {
        "taskInfo": {"name": DATA_VERSION},
        "componentRef": {"name": DATA_VERSION},
        "inputs": {
            "parameters": {
                "settings": {"runtimeValue": {"constant": configuration.data.model_dump_json()}},
                "data_root": {"componentInputParameter": "data_root"},
                "data_version": {"componentInputParameter": "data_version"},
            }
        },
    }
    answer = {"taskOutputParameter": {"producerTask": DATA_VERSION, "outputParameterKey": _FINGERPRINT}}
    _set_parameter(spec, EXAMPLE_GEN, "data_fingerprint", "STRING", answer)
    _set_parameter(spec, TRAINER, f"{OVERRIDE_PREFIX}custom_config--data_fingerprint", "STRING", answer)


def _flag(parameter: str) -> str:
    return "--" + parameter.replace("_", "-")


def _add_runtime_parameters(spec: Specification, parameters: list[RuntimeParameter]) -> None:
    definitions = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for parameter in parameters:
        definitions[parameter.name] = {
            "parameterType": parameter.type,
            "defaultValue": parameter.default,
            "isOptional": True,
        }
        for task, override in parameter.overrides:
            source = {"componentInputParameter": parameter.name}
            _set_parameter(spec, task, OVERRIDE_PREFIX + override, parameter.type, source)


def _set_parameter(spec: Specification, name: str, key: str, type_: str, source: Specification) -> None:
    """Give a task one more input parameter, or another source for the one it has."""
    inputs = spec["components"][name].setdefault("inputDefinitions", {})
    inputs.setdefault("parameters", {})[key] = {"parameterType": type_}
    task = spec["root"]["dag"]["tasks"][name]
    task.setdefault("inputs", {}).setdefault("parameters", {})[key] = source
    producer = source.get("taskOutputParameter", {}).get("producerTask")
    if producer:
        task["dependentTasks"] = sorted({*task.get("dependentTasks", []), producer})


def _train_in_a_job(spec: Specification, configuration: Configuration, shared_folder: str) -> None:
    """Put the stand-in for the Trainer's function into the package, and the job that it is to create."""
    parameters = spec["root"]["dag"]["tasks"][TRAINER]["inputs"]["parameters"]
    image = dict(containers(spec))[TRAINER]["image"]
    custom_config = json.loads(parameters["custom_config"]["runtimeValue"]["constant"])
    custom_config[TRAINING_JOB] = {
        "folder": f"{shared_folder}/{configuration.name}",
        "manifest": training_job(configuration, image),
    }
    parameters["custom_config"]["runtimeValue"]["constant"] = json.dumps(custom_config, sort_keys=True)
    parameters["run_fn"]["runtimeValue"]["constant"] = TRAIN_IN_A_JOB


def _resources(configuration: Configuration, name: str, gpus: int) -> Specification:
    pod = configuration.kubeflow.pod(name)
    asked = {
        "cpuRequest": pod.cpu,
        "memoryRequest": pod.memory_gb,
        "cpuLimit": pod.cpu_limit,
        "memoryLimit": pod.memory_limit_gb,
    }
    resources: Specification = {field: value for field, value in asked.items() if value is not None}
    if name in (TRAINER, TUNER) and gpus:
        resources["accelerator"] = {"type": configuration.kubeflow.gpu_resource, "count": str(gpus)}
    return resources


def _environment(configuration: Configuration, name: str) -> list[Specification]:
    variables = dict(configuration.kubeflow.variables)
    if configuration.kubeflow.pod(name).scratch:
        variables.setdefault("TMPDIR", SCRATCH_FOLDER)
    return [{"name": variable, "value": value} for variable, value in sorted(variables.items())]


def _retry(task: Specification, configuration: Configuration) -> None:
    retries = configuration.kubeflow.retries
    if retries.count:
        task["retryPolicy"] = {
            "maxRetryCount": retries.count,
            "backoffDuration": f"{retries.backoff_s}s",
            "backoffFactor": 2.0,
        }


def _rewrite_inputs_spec(spec: Specification) -> None:
    """The entrypoint learns a component's inputs from an argument, which must tell of the added ones too."""
    for name, container in containers(spec):
        arguments = container.get("args", [])
        if INPUTS_SPEC_FLAG in arguments:
            definitions = spec["components"][name].get("inputDefinitions", {})
            arguments[arguments.index(INPUTS_SPEC_FLAG) + 1] = json.dumps(definitions, sort_keys=True)


def _checked(spec: Specification) -> Specification:
    """The same, as kfp's own messages read it: a misspelt field fails here, not on the cluster."""
    json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    checked: Specification = json_format.MessageToDict(json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec()))
    return checked
