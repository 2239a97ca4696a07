"""Runs a compiled package on this machine, task by task."""

import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pipeline.kubeflow.names import Message
from pipeline.kubeflow.simulator import driver, launcher
from pipeline.kubeflow.simulator.driver import NotSimulatedError, Outputs, Records
from pipeline.kubeflow.specification import RefusedError, load_package
from pipeline.states import CACHED, FAILED, RAN, SKIPPED
from runtime.errors import UserError
from runtime.object_store import connect

_NOT_SIMULATED = ("artifactIterator", "parameterIterator", "iteratorPolicy")


@dataclass(frozen=True)
class TaskOutcome:
    """State, duration and number of attempts of one task."""

    name: str
    state: str
    seconds: float = 0.0
    attempts: int = 0
    error: str | None = None


@dataclass(frozen=True)
class Rehearsal:
    """One run of a package in `folder`, which keeps the store, the records and the logs between runs."""

    spec: Message
    folder: Path
    parameters: dict[str, Any]
    store: Any
    variables: Mapping[str, str]
    """Environment variables of every pod: credentials and the store's location."""
    run_id: str
    records: Records

    def run(self, listen: Callable[[TaskOutcome], None]) -> list[TaskOutcome]:
        """Run all tasks in order; after a failure, skip the rest."""
        finished: dict[str, Outputs] = {}
        outcomes: list[TaskOutcome] = []
        for name in ordered_tasks(self.spec):
            if outcomes and outcomes[-1].state in (FAILED, SKIPPED):
                outcomes.append(TaskOutcome(name, SKIPPED))
                continue
            started = time.monotonic()
            try:
                outputs, state, attempts = self._run_task(name, finished)
                finished[name] = outputs
                outcome = TaskOutcome(name, state, time.monotonic() - started, attempts)
            except UserError as error:
                outcome = TaskOutcome(name, FAILED, time.monotonic() - started, error=str(error))
            outcomes.append(outcome)
            listen(outcome)
        return outcomes

    def _run_task(self, name: str, finished: dict[str, Outputs]) -> tuple[Outputs, str, int]:
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
            root = f"{self.spec['defaultPipelineRoot']}/{self.spec['pipelineInfo']['name']}"
            folder_uri = f"{root}/{self.run_id}/{name}"
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


def open_rehearsal(
    package: Path,
    folder: Path,
    given: dict[str, str],
    variables: Mapping[str, str],
    *,
    run_id: str | None = None,
) -> Rehearsal:
    """Load and check the package, and prepare the folder.

    Raises RefusedError if Kubeflow would refuse the package, and NotSimulatedError if the simulator cannot run it.
    """
    spec = load_package(package)
    _check_simulated(spec)
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


def ordered_tasks(spec: Message) -> list[str]:
    """Task names in topological order, then in alphabetical order."""
    tasks = spec["root"]["dag"]["tasks"]
    sorter = TopologicalSorter({name: sorted(task.get("dependentTasks", [])) for name, task in tasks.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise RefusedError(f"tasks depend on each other in a cycle: {' -> '.join(error.args[1])}") from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def _check_simulated(spec: Message) -> None:
    for name, task in spec["root"]["dag"]["tasks"].items():
        if task.get("triggerPolicy", {}).get("condition") or any(field in task for field in _NOT_SIMULATED):
            raise NotSimulatedError(f"task {name!r} has a condition or a loop, which the simulator does not support")
