"""ML Metadata in a file, in MariaDB and in PostgreSQL, with real servers from the system's packages."""

import contextlib
import shutil
import socket
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from database_servers import PASSWORD
from ml_metadata.proto import metadata_store_pb2 as mlmd
from ports import free_port
from pydantic import ValidationError
from tfx.orchestration import metadata

from pipeline.local.runner import _abandon_unfinished, _mark_missing_deleted
from pipeline.metadata import history
from pipeline.metadata.ownership import claim
from pipeline.metadata.store import METADATA_FILE, MetadataSettings, MetadataStoreError, connection_of


@pytest.fixture(params=["sqlite", "mysql", "postgresql"])
def connection(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLMD_PASSWORD", PASSWORD)
    settings = MetadataSettings() if request.param == "sqlite" else request.getfixturevalue(request.param)
    return connection_of(settings, tmp_path)


def record_running(store: Any, pipeline: str) -> int:
    """A run of `pipeline` whose only component is still running; returns the execution's id."""
    contexts = []
    for type_name, name in (("pipeline", pipeline), ("pipeline_run", f"{pipeline}-run")):
        type_id = store.put_context_type(mlmd.ContextType(name=type_name), can_add_fields=True)
        contexts.append(mlmd.Context(type_id=type_id, name=name))
    type_id = store.put_execution_type(mlmd.ExecutionType(name="Trainer"))
    execution = mlmd.Execution(type_id=type_id, last_known_state=mlmd.Execution.RUNNING)
    number, _, _ = store.put_execution(execution, [], contexts)
    return int(number)


def test_pipelines_in_one_store_do_not_affect_each_others_runs(connection: Any, tmp_path: Path) -> None:
    with metadata.Metadata(connection) as handle:
        mine, other = record_running(handle.store, "mine"), record_running(handle.store, "other")
        context = handle.store.get_context_by_type_and_name("pipeline", "mine")
        _abandon_unfinished(handle.store, context.id, tmp_path)
        states = {e.id: e.last_known_state for e in handle.store.get_executions_by_id([mine, other])}
    assert states == {mine: mlmd.Execution.FAILED, other: mlmd.Execution.RUNNING}
    listed = history.past_runs(connection, tmp_path)
    assert {name: [run.run_id for run in listed[name]] for name in ("mine", "other")} == {
        "mine": ["mine-run"],
        "other": ["other-run"],
    }


def test_only_removed_artifacts_are_marked_as_deleted(connection: Any, tmp_path: Path) -> None:
    with metadata.Metadata(connection) as handle:
        execution = record_running(handle.store, "cleaned")
        type_id = handle.store.put_artifact_type(mlmd.ArtifactType(name="Examples"), can_add_fields=True)
        there, gone = (mlmd.Artifact(type_id=type_id, uri=uri) for uri in (str(tmp_path), f"{tmp_path}/removed"))
        for artifact in (there, gone):  # as TFX's own have: properties, of which none says where it was pushed to
            artifact.state = mlmd.Artifact.LIVE
            artifact.custom_properties["name"].string_value = "examples"
        there.id, gone.id = handle.store.put_artifacts([there, gone])
        context = handle.store.get_context_by_type_and_name("pipeline", "cleaned")
        attributions = [mlmd.Attribution(artifact_id=a.id, context_id=context.id) for a in (there, gone)]
        handle.store.put_attributions_and_associations(attributions, [])
        _mark_missing_deleted(handle.store, context.id)
        states = {a.id: a.state for a in handle.store.get_artifacts_by_id([there.id, gone.id])}
        running = handle.store.get_executions_by_id([execution])[0].last_known_state
    assert states == {there.id: mlmd.Artifact.LIVE, gone.id: mlmd.Artifact.DELETED}
    assert running == mlmd.Execution.RUNNING


def test_an_unreachable_server_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLMD_PASSWORD", PASSWORD)
    settings = MetadataSettings(backend="mysql", host="127.0.0.1", port=free_port(), database="mlmd", user="tfx")
    with pytest.raises(MetadataStoreError, match=r"tfx cannot use database mlmd .* 127.0.0.1 .*; start the server"):
        connection_of(settings, tmp_path)


@pytest.mark.parametrize("name", ["100%41", "a#b", "what?"])
def test_a_folder_may_have_special_characters_in_its_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / METADATA_FILE)) as file:
        file.execute("CREATE TABLE t (x)")
    connection_of(MetadataSettings(), folder)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (folder / METADATA_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(MetadataStoreError, match="is damaged"):
        connection_of(MetadataSettings(), folder)


def test_a_name_belongs_to_the_folder_that_used_it_first(connection: Any, tmp_path: Path) -> None:
    here, there, elsewhere = (tmp_path / name for name in ("here", "there", "elsewhere"))
    for folder in (here, there):
        folder.mkdir()
    claim(connection, "mine", here)
    with pytest.raises(MetadataStoreError, match=rf"mine runs in \S+:{here}; .* Choose another name .*echo"):
        claim(connection, "mine", there)
    claim(connection, "other", there)
    claim(connection, "mine", here)
    here.rename(elsewhere)
    claim(connection, "mine", elsewhere)
    with pytest.raises(MetadataStoreError, match=str(elsewhere)):
        claim(connection, "mine", there)


def test_the_name_of_a_removed_folder_can_be_reused(
    connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("first", "of another host", "last")
    first, of_another_host, last = (tmp_path / name for name in names)
    first.mkdir()
    claim(connection, "lost", first)
    shutil.rmtree(first)
    of_another_host.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "another")
        with pytest.raises(MetadataStoreError, match="runs in"):
            claim(connection, "lost", of_another_host)
    claim(connection, "lost", of_another_host)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "another")
        claim(connection, "lost", of_another_host)
    last.mkdir()
    with pytest.raises(MetadataStoreError, match=r"echo \w+ > ") as refused:
        claim(connection, "lost", last)
    remedy = str(refused.value).rpartition(": ")[2]
    subprocess.run(remedy, shell=True, check=True)
    claim(connection, "lost", last)


def test_a_missing_password_is_reported_with_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_PASSWORD", raising=False)
    settings = MetadataSettings(
        backend="mysql", host="db", database="mlmd", user="tfx", password_variable="DATABASE_PASSWORD"
    )
    with pytest.raises(MetadataStoreError, match="DATABASE_PASSWORD; export it with the password of tfx at db"):
        connection_of(settings, tmp_path)


def test_a_server_needs_an_address_and_a_file_must_not_have_one() -> None:
    with pytest.raises(ValidationError, match=r"metadata\.host is required for backend 'mysql'"):
        MetadataSettings(backend="mysql")
    with pytest.raises(ValidationError, match=r"metadata\.user has no meaning for backend 'sqlite'"):
        MetadataSettings(user="tfx")
