"""An Apache Spark cluster of one master and two workers, each with one executor, as Spark's own scripts start it."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from ports import free_port
from servers import fetch, started, wait_until

WORKERS = 2
# Java 17 packages that Spark's scripts open for the driver, here Beam's job server; executors open them themselves.
_OPENED = ("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util")
_OPENED += ("java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs", "sun.util.calendar")


@dataclass
class SparkCluster:
    options: list
    """Beam options that run a pipeline on the cluster."""
    events: Path
    """Folder with one log per job."""

    def executors(self):
        """(name as in beam.components, executors that finished a task) of each job."""
        return [self._executors(log) for log in self.events.iterdir()]

    def _executors(self, log):
        events = [json.loads(line) for line in log.read_text().splitlines()]
        [name] = [event["App Name"] for event in events if event["Event"] == "SparkListenerApplicationStart"]
        tasks = [event["Task Info"] for event in events if event["Event"] == "SparkListenerTaskEnd"]
        return name.split("_")[0], {task["Executor ID"] for task in tasks if not task["Failed"]}


@contextlib.contextmanager
def spark_cluster(jar, directory):
    """A running SparkCluster; the jar of Beam's job server contains Spark."""
    home, events = directory / "spark", directory / "events"
    (home / "jars").mkdir(parents=True)
    (home / "jars" / jar.name).symlink_to(jar)
    events.mkdir()
    port, page = free_port(), free_port()
    master_url = f"spark://localhost:{port}"
    java = ["java", "-Xmx256m", "-cp", jar]
    environment = {"SPARK_HOME": str(home), "SPARK_SCALA_VERSION": "2.12", "SPARK_LOCAL_IP": "127.0.0.1"}
    where = ["--host", "localhost", "--webui-port"]
    with contextlib.ExitStack() as servers:
        log = directory / "master.log"
        command = [*java, "org.apache.spark.deploy.master.Master", *where, page, "--port", port]
        master = servers.enter_context(started(command, log, **environment))
        for number in range(WORKERS):
            work = directory / f"worker-{number}"
            command = [*java, "org.apache.spark.deploy.worker.Worker", *where, free_port(), "--cores", "1"]
            command += ["--memory", "1g", "--work-dir", work, master_url]
            servers.enter_context(started(command, directory / f"worker-{number}.log", **environment))
        overview = f"http://localhost:{page}/json/"
        wait_until(lambda: (fetch(overview) or {}).get("aliveworkers") == WORKERS, master, log)
        yield SparkCluster(
            [f"--spark_master_url={master_url}", f"--spark_job_server_jar={jar}", *_java(events)], events
        )


def _java(events):
    """Options of the job server, which is the driver of all jobs."""
    properties = {
        "driver.host": "localhost",
        "driver.bindAddress": "127.0.0.1",
        "ui.enabled": "false",
        "executor.memory": "700m",
        "executor.cores": "1",
        "cores.max": WORKERS,
        "default.parallelism": WORKERS,
        "eventLog.enabled": "true",
        "eventLog.dir": events.as_uri(),
    }
    settings = ["-Xmx700m", *(f"-Dspark.{name}={value}" for name, value in properties.items())]
    settings += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    return [f"--job_server_jvm_properties={setting}" for setting in settings]
