"""`autoencoder rehearse`: a compiled package, played on this machine task by task."""

import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2  # type: ignore[import-untyped]

from pipeline.kubeflow.simulator import driver, launcher
from pipeline.kubeflow.simulator.driver import Message, NotPlayedError, Outputs, Records, RefusedError
from pipeline.states import CACHED, FAILED, RAN, SKIPPED
from runtime.object_store import connect

SCHEMA_VERSION = "2.1.0"
_ARGO_NAME = re.compile(r"^[a-zA-Z0-9][-a-zA-Z0-9]*$")
_NOT_PLAYED = ("artifactIterator", "parameterIterator", "iteratorPolicy")


@dataclass(frozen=True)
class TaskOutcome:
    """What happened to one task."""

    name: str
    state: str
    seconds: float = 0.0
    attempts: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Rehearsal:
    """One run of a package in `folder`, which keeps store, records and logs between runs."""

    spec: Message
    folder: Path
    parameters: dict[str, Any]
    store: Any
    variables: Mapping[str, str]
    """Environment variables of every pod: what secrets would bring, and where the store is."""
    run_id: str
    records: Records

    def play(self, listen: Callable[[TaskOutcome], None]) -> list[TaskOutcome]:
        """All tasks in order; after a failure the rest are skipped."""
        finished: dict[str, Outputs] = {}
        outcomes: list[TaskOutcome] = []
        for name in ordered_tasks(self.spec):
            if outcomes and outcomes[-1].state in (FAILED, SKIPPED):
                outcomes.append(TaskOutcome(name, SKIPPED))
                continue
            started = time.monotonic()
            try:
                outputs, state, attempts = self._play_task(name, finished)
                finished[name] = outputs
                outcome = TaskOutcome(name, state, time.monotonic() - started, attempts)
            except (launcher.PodFailedError, RefusedError, NotPlayedError) as error:
                outcome = TaskOutcome(name, FAILED, time.monotonic() - started, error=str(error))
            outcomes.append(outcome)
            listen(outcome)
        return outcomes

    def _play_task(self, name: str, finished: dict[str, Outputs]) -> tuple[Outputs, str, int]:
        task, component, container = self._definitions(name)
        inputs = driver.resolve_inputs(task, self.parameters, finished, self.records)
        key = driver.cache_key(inputs, component, container)
        caching = task.get("cachingOptions", {}).get("enableCache", False)
        if caching and key in self.records.cache:
            return Outputs(**self.records.cache[key]), CACHED, 0
        output, attempts = self._launch_with_retries(name, task, component, container, inputs)
        outputs = Outputs(
            {key: self.records.add_artifact(key, artifact) for key, artifact in output["artifacts"].items()},
            output["parameterValues"],
        )
        if caching:
            self.records.cache[key] = {"artifacts": outputs.artifacts, "parameters": outputs.parameters}
        self.records.save()
        return outputs, RAN, attempts

    def _launch_with_retries(
        self, name: str, task: Message, component: Message, container: Message, inputs: Message
    ) -> tuple[Message, int]:
        attempts = 1 + int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
        for attempt in range(1, attempts + 1):
            pod = launcher.Pod(self.folder / "pods" / f"{name}-{self.run_id}-{attempt}")
            pod.folder.mkdir(parents=True)
            folder_uri = f"{self._root()}/{self.run_id}/{name}"
            outputs = driver.provision_outputs(component, folder_uri, pod.folder)
            log = self.folder / "logs" / f"{self.run_id}-{name}-{attempt}.log"
            log.parent.mkdir(exist_ok=True)
            try:
                executor_input = {"inputs": inputs, "outputs": outputs}
                return launcher.launch(
                    container, executor_input, pod=pod, store=self.store, variables=self.variables, log=log
                ), attempt
            except launcher.PodFailedError:
                if attempt == attempts:
                    raise
            finally:
                shutil.rmtree(pod.folder)
        raise AssertionError("a task has at least one attempt")

    def _definitions(self, name: str) -> tuple[Message, Message, Message]:
        task = self.spec["root"]["dag"]["tasks"][name]
        component = self.spec["components"][task["componentRef"]["name"]]
        executor = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]
        return task, component, executor["container"]

    def _root(self) -> str:
        return f"{self.spec['defaultPipelineRoot']}/{self.spec['pipelineInfo']['name']}"


def open_rehearsal(
    package: Path,
    folder: Path,
    given: dict[str, str],
    variables: Mapping[str, str],
    *,
    run_id: str | None = None,
) -> Rehearsal:
    """Load the package as Kubeflow's API server does, and prepare the folder.

    Raises RefusedError for what it would refuse, NotPlayedError for what only a cluster can show.
    """
    spec = load_package(package)
    _check_played(spec)
    folder.mkdir(parents=True, exist_ok=True)
    return Rehearsal(
        spec,
        folder,
        driver.run_parameters(spec, given),
        connect(variables),
        variables,
        run_id or uuid.uuid4().hex[:12],
        Records.load(folder / "records.json"),
    )


def load_package(path: Path) -> Message:
    """The checked specification; raises RefusedError that names what is wrong with it."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RefusedError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedError(f"{path}: is not valid YAML: {error}") from None
    if not documents or not isinstance(documents[0], dict) or "root" not in documents[0]:
        raise RefusedError(f"{path}: is no compiled package; make one with: autoencoder compile")
    spec: Message = documents[0]
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise RefusedError(f"{path}: {error}") from None
    _check(spec)
    return spec


def ordered_tasks(spec: Message) -> list[str]:
    """Task names, each after those it depends on; equally ready ones in alphabetical order."""
    tasks = spec["root"]["dag"]["tasks"]
    sorter = TopologicalSorter({name: sorted(task.get("dependentTasks", [])) for name, task in tasks.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise RefusedError(f"tasks depend on each other in a circle: {' -> '.join(error.args[1])}") from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def _check(spec: Message) -> None:
    if spec.get("schemaVersion") != SCHEMA_VERSION:
        raise RefusedError(
            f"schemaVersion {spec.get('schemaVersion')!r}: Kubeflow Pipelines 2 takes {SCHEMA_VERSION} only"
        )
    tasks = spec["root"]["dag"]["tasks"]
    for name, task in tasks.items():
        if not _ARGO_NAME.match(name):
            raise RefusedError(f"task {name!r}: Argo allows letters, digits and hyphens only")
        for producer in _producers(task):
            if producer not in tasks:
                raise RefusedError(f"task {name!r} reads from {producer!r}, and there is no such task")
            if producer not in task.get("dependentTasks", []):
                raise RefusedError(f"task {name!r} reads from {producer!r} but would not wait for it")
        executor = spec["deploymentSpec"]["executors"][spec["components"][name]["executorLabel"]]
        if "container" not in executor:
            raise RefusedError(f"task {name!r} is a {', '.join(executor)}, not a container")


def _check_played(spec: Message) -> None:
    for name, task in spec["root"]["dag"]["tasks"].items():
        if task.get("triggerPolicy", {}).get("condition") or any(field in task for field in _NOT_PLAYED):
            raise NotPlayedError(f"task {name!r} has a condition or a loop, which the rehearsal does not play")


def _producers(task: Message) -> set[str]:
    inputs = task.get("inputs", {})
    sources = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
    found = (source.get("taskOutputParameter") or source.get("taskOutputArtifact") for source in sources)
    return {source["producerTask"] for source in found if source}
