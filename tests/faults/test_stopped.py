"""Runs that are stopped by SIGTERM or Ctrl-C, or run out of memory."""

import signal
import time

import faults
import pytest
from fault_runs import Runs, names_that

pytestmark = pytest.mark.faults
DONE, FAILED = 0, 1
BEFORE_TRAINER = ["CuratedSchemaGen", "ImageExampleGen", "StatisticsGen", "ExampleValidator", "Transform"]
OTHER_MODEL = ("seed=7", "evaluation.max_regression=null")


def in_training(runs: Runs, *overrides):
    """A run that has trained for at least one epoch of many."""
    started = runs.start("trainer.epochs=100000", *overrides)
    deadline = time.monotonic() + 120
    while not list((runs.folder / "artifacts/Trainer/checkpoints").glob("*/training.npz")):
        assert time.monotonic() < deadline, started.stderr
        time.sleep(0.05)
    return started


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_in_order_and_the_next_one_continues(spare: Runs, table, sent, code):
    started = in_training(spare, *OTHER_MODEL)
    started.send(sent)
    ended = started.wait(60)
    assert ended.code == code, ended.stderr
    assert "interrupted; the next run continues after the last finished component" in ended.stderr
    assert "Traceback" not in ended.stderr
    following = spare.run()
    assert (following.code, names_that("ran", following)) == (DONE, [])
    table(sent.name, "Trainer", f"exit code {code}: {ended.stderr.splitlines()[-1]}")


def test_a_second_ctrl_c_ends_the_run_immediately(spare: Runs, table):
    started = in_training(spare, *OTHER_MODEL)
    started.send(signal.SIGINT)
    time.sleep(0.02)
    started.send(signal.SIGINT)
    sent_at = time.monotonic()
    ended = started.wait(60)
    assert ended.code in (-signal.SIGINT, 130)
    assert time.monotonic() - sent_at < 10
    following = spare.run()
    assert (following.code, names_that("ran", following)) == (DONE, [])
    table("Ctrl-C twice", "Trainer", f"ended in {time.monotonic() - sent_at:.1f} s; the next run finds everything")


@pytest.mark.parametrize("component", ["StatisticsGen", "Transform"])
def test_running_out_of_memory_is_reported_and_nothing_is_pushed(fresh: Runs, table, component):
    ended = fresh.run(fault=faults.limit_memory, details=(component, 24))
    assert ended.code != DONE
    assert fresh.versions == []
    if ended.code == FAILED:
        assert f"{component} failed: out of memory" in ended.stderr, ended.stderr
        table("out of memory", component, ended.document["error"])
        return
    # Native code or the kernel ends the process without a message; then the next run reports it.
    following = fresh.run("trainer.epochs=1", fault=faults.kill_after, details=(BEFORE_TRAINER[0],))
    assert f"ended in the middle of {component}:" in following.stderr
    table("out of memory", component, f"ends by {signal.Signals(-ended.code).name}; the next run reports it")
