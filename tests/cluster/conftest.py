"""Beam's workers in processes of their own: behind a portable job service, and two at once."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
ENDPOINT_VARIABLE = "BEAM_JOB_ENDPOINT"


@pytest.fixture(scope="session")
def job_service(tmp_path_factory):
    """Beam options that send every step to a job service, whose workers a pool on this machine starts.

    The service is the one that BEAM_JOB_ENDPOINT names, such as Flink's or Spark's job server; without it, the one
    that comes with Beam for Python.
    """
    logs = tmp_path_factory.mktemp("servers")
    with contextlib.ExitStack() as servers:
        pool = servers.enter_context(serving("apache_beam.runners.worker.worker_pool_main", "--service_port", logs))
        endpoint = os.environ.get(ENDPOINT_VARIABLE) or servers.enter_context(
            serving("apache_beam.runners.portability.local_job_service_main", "--port", logs)
        )
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint={endpoint}",
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
            "--parallelism=2",
        ]


@contextlib.contextmanager
def serving(module, port_option, logs):
    """One of Beam's servers on a free port, for as long as the context lasts: its address."""
    port = free_port()
    # The pool starts its workers as `python`, in this interpreter's environment.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)}
    with (logs / f"{module}.log").open("w") as log:
        command = [sys.executable, "-m", module, f"{port_option}={port}"]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(port, server)
            yield f"localhost:{port}"
        finally:
            server.terminate()
            server.wait(timeout=60)


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def wait_for(port, server, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended before it served"
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"nothing listens on port {port} after {timeout_s} s")
