"""A run that has no verdict is running while its process lives, and incomplete afterwards."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from repository import REPOSITORY
from tfx.orchestration import metadata

from pipeline.metadata.history import PastRun, past_runs
from pipeline.metadata.ownership import claim
from pipeline.metadata.run_lock import ENDED, RUNNING, run_lock, state_of_run

HOLD = """
import sys
from pathlib import Path
from pipeline.metadata.run_lock import run_lock
with run_lock(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def process_with_lock(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_run_is_running_until_its_process_is_killed(tmp_path: Path) -> None:
    with process_with_lock(tmp_path) as process:
        started_ms = int(time.time() * 1000)
        assert state_of_run(tmp_path, started_ms) == RUNNING
        assert state_of_run(tmp_path, started_ms - 60_000) == ENDED  # an earlier run; this process has begun none yet
        process.kill()
        process.wait()
        assert state_of_run(tmp_path, started_ms) == ENDED


def test_a_second_run_waits_and_says_for_which_process(tmp_path: Path) -> None:
    told: list[str] = []
    with process_with_lock(tmp_path) as process:

        def tell(text: str) -> None:
            told.append(text)
            process.kill()

        with run_lock(tmp_path, tell):
            pass
    assert told[0].startswith(f"waiting for another run in {tmp_path} (process {process.pid} of ")


def test_only_another_machine_can_tell_whether_its_run_has_ended(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 7 of elsewhere, started 2026-11-28 01:00:00 +0000")
    assert state_of_run(tmp_path, int(time.time() * 1000)) == "elsewhere"
    assert state_of_run(tmp_path, 0) == ENDED


@pytest.mark.parametrize("text", ["", "process 7 of here, started 2026-11-28 01:00:00", "damaged"])
def test_a_file_that_an_older_version_left_belongs_to_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / ".lock").write_text(text)
    assert state_of_run(tmp_path, int(time.time() * 1000)) == ENDED
    assert state_of_run(tmp_path / "absent", 0) == ENDED


def test_the_newest_run_in_a_store_is_running_or_incomplete(tmp_path: Path) -> None:
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    folder = tmp_path / "a"
    folder.mkdir()

    def begin(name: str) -> None:
        with metadata.Metadata(connection) as handle:
            store = handle.store
            contexts = []
            for type_name, context in (("pipeline", "a"), ("pipeline_run", name)):
                type_id = store.put_context_type(mlmd.ContextType(name=type_name), can_add_fields=True)
                contexts.append(mlmd.Context(type_id=type_id, name=context))
            type_id = store.put_execution_type(mlmd.ExecutionType(name="Trainer"))
            running = mlmd.Execution(type_id=type_id, last_known_state=mlmd.Execution.RUNNING)
            store.put_execution(running, [], contexts, reuse_context_if_already_exist=True)

    def listed(of: Path | None) -> list[PastRun]:
        return past_runs(connection, of)["a"]

    claim(connection, "a", folder)
    begin("killed")
    time.sleep(1.1)  # the lock's file has whole seconds
    with process_with_lock(folder):
        assert [run.verdict for run in listed(folder)] == ["incomplete"]
        begin("new")
        for of in (folder, None):  # None: the store tells the folder
            assert [(run.run_id, run.verdict) for run in listed(of)] == [("new", "running"), ("killed", "incomplete")]
            assert 0 < listed(of)[0].seconds < 60
    assert [run.verdict for run in listed(None)] == ["incomplete", "incomplete"]
    (folder / ".lock").write_text("process 7 of elsewhere, started 2026-11-28 01:00:00 +0000")
    assert [(run.verdict, run.machine) for run in listed(folder)][0] == ("unknown", "elsewhere")
