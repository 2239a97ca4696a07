"""Runs a compiled package on this machine, task by task."""

import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from pipeline.kubeflow.names import Message
from pipeline.kubeflow.simulator import argo, driver, launcher, platform
from pipeline.kubeflow.simulator.driver import NotSimulatedError, Records
from pipeline.kubeflow.specification import RefusedError, load_documents
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


class Rehearsal:
    """One run of a package in `folder`, which keeps the store, the records and the logs between runs."""

    def __init__(
        self,
        package: Path,
        folder: Path,
        given: dict[str, str],
        variables: Mapping[str, str],
        *,
        retry_policy: str = argo.ON_ERROR,
    ) -> None:
        """Load and check the package.

        `variables`: those of every pod, with credentials and the store's location. `retry_policy`: that of Argo's
        controller.

        Raises RefusedError if Kubeflow would refuse the package or ignore a part of it, and NotSimulatedError if the
        simulator cannot run it.
        """
        self._spec, second = load_documents(package)
        self._pod_patches = platform.pod_patches(second)
        _check_simulated(self._spec)
        self._retry_policy = retry_policy
        self._parameters = driver.run_parameters(self._spec, given)
        self._folder = folder
        self._variables = variables
        self._store = connect(variables)
        self._records = Records(folder / "records.json")
        self.run_id = uuid.uuid4().hex[:12]

    def run(self, listen: Callable[[TaskOutcome], None]) -> list[TaskOutcome]:
        """Run all tasks in order; after a failure, skip the rest."""
        finished: Message = {}
        outcomes: list[TaskOutcome] = []
        for name in ordered_tasks(self._spec):
            if outcomes and outcomes[-1].state in (FAILED, SKIPPED):
                outcomes.append(TaskOutcome(name, SKIPPED))
                continue
            started = time.monotonic()
            try:
                finished[name], state, attempts = self._run_task(name, finished)
                outcome = TaskOutcome(name, state, time.monotonic() - started, attempts)
            except UserError as error:
                outcome = TaskOutcome(name, FAILED, time.monotonic() - started, error=str(error))
            outcomes.append(outcome)
            listen(outcome)
        return outcomes

    def _run_task(self, name: str, finished: Message) -> tuple[Message, str, int]:
        """(outputs, RAN or CACHED, number of attempts)."""
        task = self._spec["root"]["dag"]["tasks"][name]
        component = self._spec["components"][task["componentRef"]["name"]]
        container = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        inputs = driver.resolve_inputs(task, self._parameters, finished, self._records)
        pod_patch = self._pod_patches.get(component["executorLabel"], {})
        cache_key = driver.cache_key(self._spec["pipelineInfo"]["name"], inputs, component, container, pod_patch)
        caching = task.get("cachingOptions", {}).get("enableCache", False)
        if caching and cache_key in self._records.cache:
            return self._records.cache[cache_key], CACHED, 0
        attempts = 0
        started = time.monotonic()
        while True:
            attempts += 1
            try:
                output = self._launch(attempts, name, component, container, inputs)
                break
            except launcher.PodFailedError as error:
                seconds = time.monotonic() - started
                reason = argo.why_not_retried(
                    task, controller_policy=self._retry_policy, attempts=attempts, seconds=seconds
                )
                if reason:
                    raise launcher.PodFailedError(f"{error}\nnot started again: {reason}") from None
        artifacts = {key: self._records.add_artifact(key, artifact) for key, artifact in output["artifacts"].items()}
        outputs = {"artifacts": artifacts, "parameters": output["parameterValues"]}
        if caching:
            self._records.cache[cache_key] = outputs
        self._records.save()
        return outputs, RAN, attempts

    def _launch(self, attempt: int, name: str, component: Message, container: Message, inputs: Message) -> Message:
        pod = self._folder / "pods" / f"{self.run_id}-{name}-{attempt}"
        pod.mkdir(parents=True)
        log = self._folder / "logs" / f"{self.run_id}-{name}-{attempt}.log"
        log.parent.mkdir(exist_ok=True)
        root = f"{self._spec['defaultPipelineRoot']}/{self._spec['pipelineInfo']['name']}/{self.run_id}/{name}"
        executor_input = {"inputs": inputs, "outputs": driver.provision_outputs(component, root, pod, attempt)}
        try:
            return launcher.launch(
                container, executor_input, pod=pod, store=self._store, variables=self._variables, log=log
            )
        finally:
            shutil.rmtree(pod)


def ordered_tasks(spec: Message) -> list[str]:
    """Task names in topological order, the same in every rehearsal of a package."""
    tasks = sorted(spec["root"]["dag"]["tasks"].items())
    try:
        return list(TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks}).static_order())
    except CycleError as error:
        raise RefusedError(f"tasks depend on each other in a cycle: {' -> '.join(error.args[1])}") from None


def _check_simulated(spec: Message) -> None:
    for name, task in spec["root"]["dag"]["tasks"].items():
        if task.get("triggerPolicy", {}).get("condition") or any(field in task for field in _NOT_SIMULATED):
            raise NotSimulatedError(f"task {name!r} has a condition or a loop, which the simulator does not support")
