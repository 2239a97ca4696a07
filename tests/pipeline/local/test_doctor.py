"""`autoencoder doctor` on machines with problems."""

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.commands.doctor import doctor as command
from pipeline.local import doctor
from pipeline.local.doctor import BROKEN, MISSING, OK, Finding
from schema.signatures import DEFAULT_REST_PORT


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    return by_name(list(doctor.examine(tmp_path_factory.mktemp("runs"))))


def test_nothing_is_broken_on_the_machine_that_runs_the_tests(findings: dict[str, Finding]) -> None:
    assert [finding for finding in findings.values() if finding.state == BROKEN] == []
    assert findings["TensorFlow starts"].detail == "with Keras 2 (tf_keras)"


def test_whatever_is_broken_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    found = by_name([doctor._python(), doctor._container_engine(), doctor._program("java", "x", "install Java")])
    assert found["Python"].state == BROKEN
    assert found["Python"].remedy.startswith("make setup PYTHON=")
    assert found["container engine"].state == found["java"].state == MISSING


def test_a_damaged_metadata_store_is_named(tmp_path: Path) -> None:
    for name in ("whole", "damaged"):
        (tmp_path / name).mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "whole" / "metadata.sqlite")) as connection:
        connection.execute("CREATE TABLE t (x)")
    (tmp_path / "damaged" / "metadata.sqlite").write_bytes(b"no database" * 1000)
    found = by_name(list(doctor._metadata_stores(tmp_path)))
    assert found["metadata of whole"].state == OK
    assert found["metadata of damaged"].state == BROKEN
    assert str(tmp_path / "damaged" / "metadata.sqlite") in found["metadata of damaged"].remedy


def test_a_store_in_use_or_of_a_killed_run_is_not_damaged(tmp_path: Path) -> None:
    for name in ("locked", "killed"):
        (tmp_path / name).mkdir()
    locked, killed = (tmp_path / name / "metadata.sqlite" for name in ("locked", "killed"))
    writer = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("CREATE TABLE t (x)")
connection.execute("PRAGMA cache_size = 1")  # so that changes are in the file before they are committed
connection.execute("BEGIN")
connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 1000)
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", writer, str(killed)], check=False)
    assert Path(f"{killed}-journal").stat().st_size > 0
    holder = sqlite3.connect(locked, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    found = by_name(list(doctor._metadata_stores(tmp_path)))
    holder.close()
    assert found["metadata of killed"].state == OK
    assert found["metadata of locked"].state == BROKEN
    assert f"locked by process {os.getpid()} (" in found["metadata of locked"].detail
    assert "aside" not in found["metadata of locked"].remedy


def test_a_program_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("docker", "nvidia-smi"):
        (tmp_path / name).write_text("#!/bin/sh\nexec /bin/sleep 60\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    engine, gpu = doctor._container_engine(timeout_s=0.2), doctor._gpu(0, timeout_s=0.2)
    assert [engine.state, gpu.state] == [MISSING, MISSING]
    assert "no response within 0.2 s" in gpu.detail


def test_a_port_in_use_is_reported_with_the_option_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        finding = doctor._port(taken.getsockname()[1], "REST")
    assert finding.state == MISSING
    assert finding.remedy == "autoencoder serve --rest_api_port=ANOTHER"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_broken(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert doctor._writable(tmp_path / "runs").state == BROKEN


def test_a_package_that_is_not_installed_is_broken() -> None:
    assert [doctor._package(name).state for name in ("tensorflow", "no-such-package")] == [OK, BROKEN]
    assert doctor._package("no-such-package", "rare uses").state == MISSING


def test_the_checks_do_not_import_tensorflow() -> None:
    script = "import sys, pipeline.local.doctor; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_json_is_one_document_and_the_exit_code_is_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "metadata.sqlite").write_bytes(b"no database" * 1000)
    result = CliRunner().invoke(command, ["--root", str(tmp_path), "--json"])
    document = json.loads(result.output)
    assert result.exit_code == 1
    assert {entry["what"] for entry in document if entry["state"] == BROKEN} == {"metadata of damaged"}
    assert any(entry["what"] == f"port {DEFAULT_REST_PORT}" for entry in document)
