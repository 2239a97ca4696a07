"""Two runs of one pipeline at the same time: the second waits, and says for whom."""

import pytest
from conftest import Runs, names_that, weights_digest

pytestmark = pytest.mark.faults
DONE = 0


def test_the_second_of_two_runs_waits_and_finds_everything_done(spare: Runs, table):
    overrides = ("seed=8", "evaluation.max_regression=null")
    first, second = spare.start(*overrides), spare.start(*overrides)
    ends = sorted([first.wait(), second.wait()], key=lambda ended: "waiting for" in ended.stderr)
    assert [ended.code for ended in ends] == [DONE, DONE], ends[1].stderr
    waited_for = first if "waiting for" in second.stderr else second
    assert f"waiting for another run in {spare.folder} (process {waited_for.process.pid}, started" in ends[1].stderr
    assert "Trainer" in names_that("ran", ends[0])
    assert names_that("ran", ends[1]) == []
    assert ends[0].document["pushed"] == ends[1].document["pushed"]
    assert len(spare.versions) == 2
    assert weights_digest(ends[0].document["pushed"])
    table("two runs at once", "whole run", ends[1].stderr.splitlines()[0])
