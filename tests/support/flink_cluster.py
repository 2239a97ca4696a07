"""An Apache Flink cluster of one job manager and two task managers, as Flink's own scripts start it."""

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass

from ports import free_port
from servers import fetch, started, wait_until

TASK_MANAGERS = ("one", "two")
_ENTRY = "org.apache.flink.runtime"
# Memory is divided explicitly, as Flink's scripts would. Beam's classes are on the cluster's own class path, hence
# parent-first. docs/scale.md explains the other settings.
_CONFIGURATION = """
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc_port}
jobmanager.bind-host: localhost
blob.server.port: 0
rest.address: localhost
rest.bind-address: localhost
rest.port: {rest_port}
taskmanager.host: localhost
taskmanager.bind-host: localhost
taskmanager.numberOfTaskSlots: 2
taskmanager.cpu.cores: 2
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 384m
taskmanager.memory.task.off-heap.size: 128m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 256m
taskmanager.memory.network.max: 256m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
taskmanager.network.sort-shuffle.min-buffers: 64
classloader.resolve-order: parent-first
cluster.evenly-spread-out-slots: true
restart-strategy.type: exponential-delay
restart-strategy.exponential-delay.initial-backoff: 5 s
restart-strategy.exponential-delay.attempts-before-reset-backoff: 4
io.tmp.dirs: {directory}
"""


@dataclass
class FlinkJob:
    name: str
    """As in beam.components."""
    state: str
    task_managers: set
    """The task managers that finished subtasks of the job."""
    failures: list
    """The exceptions after which it was restarted."""


@dataclass
class FlinkCluster:
    rest: str
    """Host and port of the job manager."""
    task_managers: dict
    """Name -> process."""

    def history(self):
        """A FlinkJob for each job; a component may have several."""
        return [self._job(name, job) for name, job in self._jobs()]

    def kill_one_during(self, component):
        """Kill the second task manager, in the background, as soon as it runs the component's job."""
        threading.Thread(target=self._kill, args=(component, TASK_MANAGERS[1]), daemon=True).start()

    def _kill(self, component, victim):
        while not any(victim in self._task_managers(job, "RUNNING") for name, job in self._jobs() if name == component):
            time.sleep(0.2)
        os.killpg(self.task_managers[victim].pid, signal.SIGKILL)

    def _job(self, name, job):
        failures = self._get(f"jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        return FlinkJob(
            name,
            self._get(f"jobs/{job}")["state"],
            self._task_managers(job, "FINISHED"),
            [f"{failure['taskManagerId']}: {failure['stacktrace']}" for failure in failures],
        )

    def _jobs(self):
        return [(job["name"], job["jid"]) for job in self._get("jobs/overview").get("jobs", ())]

    def _task_managers(self, job, state):
        vertices = [vertex["id"] for vertex in self._get(f"jobs/{job}").get("vertices", ())]
        details = [self._get(f"jobs/{job}/vertices/{vertex}") for vertex in vertices]
        subtasks = [task for detail in details for task in detail.get("subtasks", ())]
        return {task["taskmanager-id"] for task in subtasks if task["status"] == state}

    def _get(self, path):
        return fetch(f"http://{self.rest}/{path}") or {}  # a job that is just starting is not found


@contextlib.contextmanager
def flink_cluster(jar, directory):
    """A running FlinkCluster; the jar of Beam's job server contains Flink."""
    ports = {"rpc_port": free_port(), "rest_port": free_port()}
    (directory / "flink-conf.yaml").write_text(_CONFIGURATION.format(**ports, directory=directory))
    rest = f"localhost:{ports['rest_port']}"
    java = ["java", "-Xmx512m", "-XX:MaxDirectMemorySize=576m", "-cp", jar]
    where = ["--configDir", directory]
    with contextlib.ExitStack() as servers:
        log = directory / "job-manager.log"
        master = servers.enter_context(
            started([*java, f"{_ENTRY}.entrypoint.StandaloneSessionClusterEntrypoint", *where], log)
        )
        task_managers = {
            name: servers.enter_context(
                started(
                    [
                        *java,
                        f"{_ENTRY}.taskexecutor.TaskManagerRunner",
                        *where,
                        "-D",
                        f"taskmanager.resource-id={name}",
                    ],
                    directory / f"task-manager-{name}.log",
                )
            )
            for name in TASK_MANAGERS
        }
        overview = f"http://{rest}/overview"
        wait_until(lambda: (fetch(overview) or {}).get("taskmanagers") == len(TASK_MANAGERS), master, log)
        yield FlinkCluster(rest, task_managers)
