"""Two runs of one pipeline at the same time: the second waits, and says for whom."""

import time

import faults
import pytest
from conftest import Runs, names_that

pytestmark = pytest.mark.faults
STOP_EARLY = "evaluation.false_alarm_rate=0.0001"
"""Needs more held-out images than there are, which is found after ImageExampleGen."""


def test_the_second_of_two_runs_waits_and_finds_done_what_the_first_did(fresh: Runs, table):
    first = fresh.start(STOP_EARLY, fault=faults.hold, details=("ImageExampleGen", 8))
    while not first.stderr:
        time.sleep(0.01)
    second = fresh.start(STOP_EARLY)
    ends = [first.wait(), second.wait()]
    assert all("needs at least 9999 images" in ended.stderr for ended in ends)
    assert f"waiting for another run in {fresh.folder} (process {first.process.pid}, started" in ends[1].stderr
    assert names_that("ran", ends[0]) == names_that("cached", ends[1]) == ["CuratedSchemaGen"]
    assert len(list((fresh.folder / "artifacts/ImageExampleGen/examples").iterdir())) == 1
    table("two runs at once", "start", ends[1].stderr.splitlines()[0])
