"""Concurrent runs: a second run of one pipeline waits for the first; two pipelines share a database."""

import socket
import time
from pathlib import Path

import faults
import pytest
from database_servers import PASSWORD
from fault_runs import Runs, names_that
from forked import Started

from pipeline.metadata.store import MetadataSettings

pytestmark = pytest.mark.faults
STOP_EARLY = "evaluation.false_alarm_rate=0.0001"
"""Needs more held-out images than there are, which is detected after ImageExampleGen."""


def start_on(store: MetadataSettings, runs: Runs, *overrides: str) -> Started:
    given = store.model_dump(include={"backend", "host", "port", "database", "user"})
    settings = [f"metadata.{field}={value}" for field, value in given.items()]
    return runs.start(*overrides, *settings, fault=faults.set_variable, details=("MLMD_PASSWORD", PASSWORD))


def test_the_second_of_two_runs_waits_and_reuses_the_results_of_the_first(fresh: Runs, table):
    first = fresh.start(STOP_EARLY, fault=faults.hold, details=("ImageExampleGen", 8))
    while not first.stderr:
        time.sleep(0.01)
    second = fresh.start(STOP_EARLY)
    ends = [first.wait(), second.wait()]
    assert all("needs at least 9999 images" in ended.stderr for ended in ends)
    assert (
        f"waiting for another run in {fresh.folder} (process {first.process.pid} of {socket.gethostname()}, started"
        in ends[1].stderr
    )
    assert names_that("ran", ends[0]) == names_that("cached", ends[1]) == ["CuratedSchemaGen"]
    assert len(list((fresh.folder / "artifacts/ImageExampleGen/examples").iterdir())) == 1
    table("two runs at once", "start", ends[1].stderr.splitlines()[0])


def test_two_pipelines_run_at_the_same_time_on_one_database(fresh: Runs, table, mysql: MetadataSettings):
    names = ("upper", "lower")

    def run_both():
        return [start_on(mysql, fresh, f"name={name}") for name in names]

    ends = [started.wait() for started in run_both()]
    assert [(ended.code, ended.document["error"]) for ended in ends] == [(0, None), (0, None)]
    assert ends[0].document["metrics"] == ends[1].document["metrics"]
    for name, ended in zip(names, ends, strict=True):
        assert ended.document["run"] == str(fresh.root / name)
        assert len(list((fresh.root / name / "serving").iterdir())) == 1
    again = [started.wait() for started in run_both()]
    assert [names_that("ran", ended) for ended in again] == [[], []]
    table(
        "two pipelines at once on one MariaDB", "whole run", "each has its own artifacts and model; again: all cached"
    )


def test_a_name_belongs_to_one_folder_of_a_shared_database(fresh: Runs, table, mysql: MetadataSettings):
    def run_in(folder: Path) -> Started:
        return start_on(mysql, fresh, "name=twice", f"root={folder}")

    folders = [fresh.root / "one", fresh.root / "another"]
    ends = sorted((started.wait() for started in [run_in(folder) for folder in folders]), key=lambda end: end.code)
    assert [end.code for end in ends] == [0, 2]
    assert f"twice runs in {socket.gethostname()}:{ends[0].document['run']}; runs there and in" in ends[1].stderr
    assert "Choose another name (--set name=...)" in ends[1].stderr
    again = run_in(Path(ends[0].document["run"]).parent).wait()
    assert names_that("ran", again) == []
    table(
        "one name in two folders on one MariaDB", "start", "the second is refused; the first finishes, later all cached"
    )
