"""Starts servers on this machine's loopback interface, and stops them with their child processes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from command_line import REPOSITORY
from ports import free_port

START_TIMEOUT_S = 300


def job_server_jar(engine):
    """Beam's job server for Flink or Spark, built from deploy/job-server/pom.xml; skips the test if that fails."""
    for program in ("java", "mvn"):
        if not shutil.which(program):
            pytest.skip(f"`{program}` is not on the PATH: {engine} and Beam's job server need Java and Maven")
    project = REPOSITORY / "deploy" / "job-server"
    built = subprocess.run(
        ["mvn", "-B", "-q", "-f", project / "pom.xml", "package", f"-P{engine}"], capture_output=True, text=True
    )
    if built.returncode != 0:
        errors = [line for line in built.stdout.splitlines() if "ERROR" in line]
        pytest.skip(f"Maven could not build Beam's job server for {engine}: {errors[0] if errors else built.stderr}")
    return project / "target" / f"{engine}-job-server.jar"


@contextlib.contextmanager
def started(command, log, **environment):
    """Run a command in a process group, and kill the group when the context ends."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)


@contextlib.contextmanager
def worker_pool(logs):
    """The address of a worker pool that starts Beam's workers in this interpreter's environment."""
    port = free_port()
    # The pool starts its workers as `python`.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, Path(__file__).parent / "worker_pool.py", port]
    with started(command, logs / "pool.log", PATH=path, PYTHONPATH=str(REPOSITORY)) as pool:
        wait_until(lambda: listens(port), pool, logs / "pool.log")
        yield f"localhost:{port}"


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
        return True
    return False


def fetch(url):
    """The JSON document at a URL; None while the server does not answer."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)
    return None


def wait_until(ready, process, log):
    """Wait until `ready()` is true; fails with the log if the process ends or the time is up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        assert process.poll() is None, f"ended with {process.returncode}: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"not ready after {START_TIMEOUT_S} s: {log.read_text()[-3000:]}"
        time.sleep(0.2)
