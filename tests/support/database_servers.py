"""Fixtures: real database servers for ML Metadata, started from the system's packages, and their settings."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from pipeline.metadata.store import MetadataSettings

PASSWORD = "a password, it's"
START_TIMEOUT_S = 60


def run_as(user: str) -> dict[str, str]:
    """Database servers refuse to run as root."""
    return {"user": user} if os.geteuid() == 0 else {}


def wait_for(ready: Callable[[], bool], server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        assert server.poll() is None, f"{server.args} ended with status {server.returncode}"
        assert time.monotonic() < deadline, f"{server.args} did not answer"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def mysql() -> Iterator[MetadataSettings]:
    if not shutil.which("mariadbd"):
        pytest.skip("no MariaDB; on Debian: apt install mariadb-server")
    as_user = run_as("mysql")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_user}
    with _server_folder("mysql") as folder:
        data, socket_file, port = f"{folder}/data", f"{folder}/socket", free_port()
        install = [
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ]
        subprocess.run([*install, "--skip-test-db"], check=True, **quiet)
        options = [f"--datadir={data}", f"--socket={socket_file}", f"--port={port}", "--bind-address=127.0.0.1"]
        client = ["mariadb", "--no-defaults", f"--socket={socket_file}", "--user=root"]
        with _running(["mariadbd", "--no-defaults", *options], [*client, "-e", "SELECT 1"], quiet):
            grant = f"CREATE DATABASE mlmd; GRANT ALL ON mlmd.* TO 'tfx'@'127.0.0.1' IDENTIFIED BY \"{PASSWORD}\""
            subprocess.run([*client, "-e", grant], check=True, **as_user)
            yield MetadataSettings(backend="mysql", host="127.0.0.1", port=port, database="mlmd", user="tfx")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[MetadataSettings]:
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        pytest.skip("no PostgreSQL; on Debian: apt install postgresql")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **run_as("postgres")}
    with _server_folder("postgres") as folder:
        data, port = f"{folder}/data", free_port()
        subprocess.run([programs / "initdb", "-D", data, "-A", "trust", "-U", "tfx"], check=True, **quiet)
        options = ["-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"]
        client = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "tfx", "-d", "postgres", "-c"]
        with _running([programs / "postgres", "-D", data, *options], [*client, "SELECT 1"], quiet):
            subprocess.run([*client, "CREATE DATABASE mlmd"], check=True, **quiet)
            yield MetadataSettings(backend="postgresql", host="127.0.0.1", port=port, database="mlmd", user="tfx")


@contextlib.contextmanager
def _server_folder(owner: str) -> Iterator[str]:
    """Not among pytest's own, into which every pytest that starts lets nobody else."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, owner)
        yield folder


@contextlib.contextmanager
def _running(command: list[Any], question: list[str], options: dict[str, Any]) -> Iterator[None]:
    """Until it answers the question, and then for as long as it is needed."""
    server = subprocess.Popen(command, **options)
    try:
        wait_for(lambda: subprocess.run(question, check=False, **options).returncode == 0, server)
        yield
    finally:
        server.kill()
        server.wait()
