"""Adds the last two tasks: one collects the run's verdict and report, one fails if the gate refused the model."""

from pipeline.configuration.configuration import Configuration
from pipeline.kubeflow.names import (
    FAIL_TASK,
    KUBEFLOW_TYPE,
    PAGE_KEY,
    SUMMARY_KEY,
    VERDICT_TASK,
    WHEN_PARAMETER,
    Message,
)
from pipeline.kubeflow.pods import fail_when_refused, verdict

_COLLECTED = {
    "evaluation": ("Evaluator", "evaluation"),
    "pushed_model": ("Pusher", "pushed_model"),
    "report": ("Report", "report"),
}
_PAGE_TYPE = {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}
"""Kubeflow's page of a run shows artifacts of this type."""
_RESULTS = ("verdict", "explanation")


def add_verdict_tasks(spec: Message, configuration: Configuration, image: str) -> None:
    """Add both tasks, and the parameter that decides whether the second one can fail."""
    _add_task(
        spec,
        VERDICT_TASK,
        {"image": image, "command": ["python", "-m", verdict.__name__], "args": ["--executor-input", "{{$}}"]},
        artifacts={
            key: {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": output}}
            for key, (task, output) in _COLLECTED.items()
        },
        waits_for=[task for task, _ in _COLLECTED.values()],
    )
    spec["components"][VERDICT_TASK]["outputDefinitions"] = {
        "artifacts": {SUMMARY_KEY: {"artifactType": KUBEFLOW_TYPE}, PAGE_KEY: {"artifactType": _PAGE_TYPE}},
        "parameters": {name: {"parameterType": "STRING"} for name in _RESULTS},
    }
    options = {**{f"--{name}": name for name in _RESULTS}, "--when": WHEN_PARAMETER}
    arguments = [
        word for option, name in options.items() for word in (option, f"{{{{$.inputs.parameters['{name}']}}}}")
    ]
    _add_task(
        spec,
        FAIL_TASK,
        {"image": image, "command": ["python", "-m", fail_when_refused.__name__], "args": arguments},
        parameters={
            **{
                name: {"taskOutputParameter": {"producerTask": VERDICT_TASK, "outputParameterKey": name}}
                for name in _RESULTS
            },
            WHEN_PARAMETER: {"componentInputParameter": WHEN_PARAMETER},
        },
        waits_for=[VERDICT_TASK],
    )
    definitions = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    definitions[WHEN_PARAMETER] = {
        "parameterType": "STRING",
        "defaultValue": configuration.kubeflow.fail_when_refused,
        "isOptional": True,
    }


def _add_task(
    spec: Message,
    name: str,
    container: Message,
    *,
    artifacts: Message | None = None,
    parameters: Message | None = None,
    waits_for: list[str],
) -> None:
    executor = f"{name}_executor"
    spec["deploymentSpec"]["executors"][executor] = {"container": container}
    spec["components"][name] = {
        "executorLabel": executor,
        "inputDefinitions": {
            "artifacts": {key: {"artifactType": KUBEFLOW_TYPE} for key in artifacts or {}},
            "parameters": {key: {"parameterType": "STRING"} for key in parameters or {}},
        },
    }
    spec["root"]["dag"]["tasks"][name] = {
        "taskInfo": {"name": name},
        "componentRef": {"name": name},
        "dependentTasks": sorted(waits_for),
        "inputs": {"artifacts": artifacts or {}, "parameters": parameters or {}},
    }
