"""ML Metadata in a file, in MariaDB and in PostgreSQL: real servers, started from the system's packages."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from pydantic import ValidationError
from tfx.orchestration import metadata

from pipeline import history
from pipeline.local_runner import _abandon_unfinished
from pipeline.metadata_store import MetadataSettings, MetadataStoreError, connection_of

PASSWORD = "a password, it's"
START_TIMEOUT_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


@pytest.fixture(params=["sqlite", "mysql", "postgresql"])
def connection(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLMD_PASSWORD", PASSWORD)
    settings = MetadataSettings() if request.param == "sqlite" else request.getfixturevalue(request.param)
    return connection_of(settings, tmp_path)


def record_running(store: Any, pipeline: str) -> int:
    """A run of `pipeline` whose one component is still running; the execution's number."""
    contexts = []
    for type_name, name in (("pipeline", pipeline), ("pipeline_run", f"{pipeline}-run")):
        type_id = store.put_context_type(mlmd.ContextType(name=type_name), can_add_fields=True)
        contexts.append(mlmd.Context(type_id=type_id, name=name))
    type_id = store.put_execution_type(mlmd.ExecutionType(name="Trainer"))
    execution = mlmd.Execution(type_id=type_id, last_known_state=mlmd.Execution.RUNNING)
    number, _, _ = store.put_execution(execution, [], contexts)
    return int(number)


def test_pipelines_that_share_a_store_do_not_touch_each_others_runs(connection: Any, tmp_path: Path) -> None:
    with metadata.Metadata(connection) as handle:
        mine, other = record_running(handle.store, "mine"), record_running(handle.store, "other")
        context = handle.store.get_context_by_type_and_name("pipeline", "mine")
        _abandon_unfinished(handle.store, context.id, tmp_path)
        states = {e.id: e.last_known_state for e in handle.store.get_executions_by_id([mine, other])}
    assert states == {mine: mlmd.Execution.FAILED, other: mlmd.Execution.RUNNING}
    listed = history.past_runs(connection)
    assert {name: [run.run_id for run in runs] for name, runs in listed.items()} == {
        "mine": ["mine-run"],
        "other": ["other-run"],
    }


def test_a_server_without_password_in_the_environment_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_PASSWORD", raising=False)
    settings = MetadataSettings(
        backend="mysql", host="db", database="mlmd", user="tfx", password_variable="DATABASE_PASSWORD"
    )
    with pytest.raises(MetadataStoreError, match="DATABASE_PASSWORD; export it with the password of tfx at db"):
        connection_of(settings, tmp_path)


def test_a_server_needs_its_address_and_a_file_takes_none() -> None:
    with pytest.raises(ValidationError, match=r"metadata\.host is required for backend 'mysql'"):
        MetadataSettings(backend="mysql")
    with pytest.raises(ValidationError, match=r"metadata\.user has no meaning for backend 'sqlite'"):
        MetadataSettings(user="tfx")
