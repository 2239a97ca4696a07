"""The metadata database locked by another process, or damaged; the clock set back."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys

import faults
import pytest
from fault_runs import Runs, names_that, weights_digest

from pipeline.metadata.store import METADATA_FILE

pytestmark = pytest.mark.faults
DONE, BAD_USAGE = 0, 2
HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def held(file, seconds):
    command = [sys.executable, "-c", HOLD, str(file), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        yield holder
        holder.kill()


def test_a_run_waits_for_the_process_that_locks_the_database_and_names_it(spare: Runs, table):
    with held(spare.folder / METADATA_FILE, 5) as holder:
        ended = spare.run()
    assert ended.code == DONE, ended.stderr
    assert f"waiting for process {holder.pid} (" in ended.stderr
    assert names_that("ran", ended) == []
    table("database locked for 5 s", "start", f"waits: {ended.stderr.splitlines()[1]}")


def test_a_database_that_stays_locked_ends_the_run_in_bounded_time(spare: Runs, table):
    with held(spare.folder / METADATA_FILE, 600) as holder:
        ended = spare.run(fault=faults.wait_for_locks_only, details=(3.0,))
    assert ended.code == BAD_USAGE
    assert f"was locked by process {holder.pid} (" in ended.stderr
    assert "Traceback" not in ended.stderr
    table("database locked forever", "start", ended.stderr.splitlines()[-1])


def test_a_run_waits_for_a_lock_in_its_middle(spare: Runs, table):
    hold_it = [sys.executable, "-c", HOLD, str(spare.folder / METADATA_FILE), "4"]
    stop_after_it = ("data.max_reject_fraction=0.06", "evaluation.false_alarm_rate=0.0001")
    ended = spare.run(*stop_after_it, fault=faults.start_when, details=("ImageExampleGen", hold_it))
    assert "needs at least 9999 images in split 'eval', which holds 197" in ended.stderr, ended.stderr
    assert next(c["seconds"] for c in ended.document["components"] if c["name"] == "ImageExampleGen") > 4
    table("database locked for 4 s", "ImageExampleGen", "waits, then continues")


def damage_header(content):
    content[:100] = b"x" * 100


def damage_pages(content):
    content[4096:-4096] = bytes(len(content) - 8192)


def truncate(content):
    del content[len(content) // 2 :]


@pytest.mark.parametrize("damage", [damage_header, damage_pages, truncate])
def test_a_damaged_database_is_reported_with_a_remedy_and_left_unchanged(spare: Runs, table, damage):
    file, versions = spare.folder / METADATA_FILE, spare.versions
    content = bytearray(file.read_bytes())
    damage(content)
    file.write_bytes(content)
    ended = spare.run()
    assert ended.code == BAD_USAGE
    assert ended.stderr.splitlines()[-1].startswith(f"{file} is damaged (")
    assert "move it aside" in ended.stderr
    assert (file.read_bytes(), spare.versions) == (bytes(content), versions)
    table(f"database damaged ({damage.__name__})", "start", ended.stderr.splitlines()[-1])


def test_without_its_database_a_run_starts_from_scratch_and_keeps_old_artifacts_apart(spare: Runs, undisturbed, table):
    """Executions are numbered from 1 again, and folders with these numbers exist."""
    (spare.folder / METADATA_FILE).unlink()
    left = next((spare.folder / "artifacts/ImageExampleGen/examples").glob("*/Split-train")) / "data_tfrecord-left.gz"
    left.write_bytes(b"of the lost run")
    ended = spare.run()
    assert ended.code == DONE, ended.stderr
    assert names_that("cached", ended) == []
    assert weights_digest(ended.document["pushed"]) == weights_digest(undisturbed[1].document["pushed"])
    assert not left.exists()
    assert len(spare.versions) == 1  # the same model is not pushed twice
    table("database lost", "whole run", "starts from scratch; old artifacts are kept apart")


def test_with_the_clock_set_back_version_numbers_still_increase(spare: Runs, undisturbed, table):
    pushed = undisturbed[1].document["pushed"]
    newest = shutil.move(pushed, spare.folder / "serving/9999999999")
    with contextlib.closing(sqlite3.connect(spare.folder / METADATA_FILE)) as database, database:
        for name in ("Artifact", "Execution", "Context"):
            database.execute(f"UPDATE {name} SET create_time_since_epoch = create_time_since_epoch + 86400000")
            database.execute(
                f"UPDATE {name} SET last_update_time_since_epoch = last_update_time_since_epoch + 86400000"
            )
    ended = spare.run("trainer.epochs=14", "push.keep=2")
    assert ended.code == DONE, ended.stderr
    assert ended.document["pushed"].endswith("/10000000000")
    assert spare.versions == sorted(["10000000000", str(newest).rpartition("/")[2]])
    assert [row["origin"] for row in ended.document["thresholds"]][-1] == "baseline"
    table("clock set back a day, and 250 years", "Pusher", "version 10000000000 follows 9999999999")
