"""Fixtures: real database servers for ML Metadata, started from the system's packages, and their settings."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port

from pipeline.metadata_store import MetadataSettings

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
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetadataSettings]:
    if not shutil.which("mariadbd"):
        pytest.skip("no MariaDB; on Debian: apt install mariadb-server")
    folder, port = _server_folder(tmp_path_factory, "mysql"), free_port()
    data, socket_file = f"{folder}/data", f"{folder}/socket"
    as_user = run_as("mysql")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_user}
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    subprocess.run([*install, "--skip-test-db"], check=True, **quiet)
    options = [f"--datadir={data}", f"--socket={socket_file}", f"--port={port}", "--bind-address=127.0.0.1"]
    server = subprocess.Popen(["mariadbd", "--no-defaults", *options], **quiet)
    client = ["mariadb", "--no-defaults", f"--socket={socket_file}", "--user=root"]
    try:
        wait_for(lambda: subprocess.run([*client, "-e", "SELECT 1"], check=False, **quiet).returncode == 0, server)
        grant = f"CREATE DATABASE mlmd; GRANT ALL ON mlmd.* TO 'tfx'@'127.0.0.1' IDENTIFIED BY \"{PASSWORD}\""
        subprocess.run([*client, "-e", grant], check=True, **as_user)
        yield MetadataSettings(backend="mysql", host="127.0.0.1", port=port, database="mlmd", user="tfx")
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetadataSettings]:
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        pytest.skip("no PostgreSQL; on Debian: apt install postgresql")
    folder, port = _server_folder(tmp_path_factory, "postgres"), free_port()
    as_user = run_as("postgres")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_user}
    subprocess.run([programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tfx"], check=True, **quiet)
    options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen([programs / "postgres", "-D", folder / "data", *options], **quiet)
    client = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "tfx", "-d", "postgres", "-c"]
    try:
        wait_for(lambda: subprocess.run([*client, "SELECT 1"], check=False, **quiet).returncode == 0, server)
        subprocess.run([*client, "CREATE DATABASE mlmd"], check=True, **quiet)
        yield MetadataSettings(backend="postgresql", host="127.0.0.1", port=port, database="mlmd", user="tfx")
    finally:
        server.kill()
        server.wait()


def _server_folder(tmp_path_factory: pytest.TempPathFactory, owner: str) -> Path:
    folder = tmp_path_factory.mktemp(owner)
    if os.geteuid() == 0:
        shutil.chown(folder, owner)
        for parent in list(folder.parents)[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder
