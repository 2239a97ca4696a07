"""Every command turns its errors into a message and an exit status in the same way."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from repository import REPOSITORY

from pipeline.errors import Command, Interrupted, message_of
from runtime.errors import UsageError, UserError


def command_that_raises(error: BaseException) -> click.Command:
    @click.command(cls=Command)
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (UserError("the server is down"), 1, "the server is down\n"),
        (UsageError("no such file"), 2, "no such file\n"),
        (UsageError("red\x1b[31m.png: no such file"), 2, "red%1B[31m.png: no such file\n"),
        (Interrupted(signal.SIGTERM), 143, "\ninterrupted; the next run continues after the last finished component\n"),
    ],
)
def test_an_error_for_a_user_ends_with_its_message_and_status(
    error: BaseException, exit_code: int, message: str
) -> None:
    result = CliRunner().invoke(command_that_raises(error), [])
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", message)


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on a disk"),
        (RuntimeError("OOM when allocating tensor"), "out of memory"),
        (MemoryError(), "out of memory (MemoryError)"),
    ],
)
def test_a_full_machine_is_explained_with_a_remedy(error: BaseException, start: str) -> None:
    result = CliRunner().invoke(command_that_raises(error), [])
    assert result.exit_code == 1
    assert result.stderr.startswith(start)


def test_an_unexpected_error_keeps_its_traceback() -> None:
    error = ZeroDivisionError("division by zero")
    assert CliRunner().invoke(command_that_raises(error), []).exception is error


def test_the_cause_is_found_below_other_errors_and_the_runs_disk_is_named(tmp_path: Path) -> None:
    error = RuntimeError("component failed")
    error.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert f"{tmp_path} has " in message_of(error, tmp_path)


def test_beams_additions_are_removed_from_a_message() -> None:
    assert message_of(ValueError("a bad image [while running 'WriteShards']")) == "a bad image"


def test_an_error_that_native_code_raises_because_of_a_signal_counts_as_the_interruption() -> None:
    program = (
        "import os, signal\n"
        "from pipeline.errors import Interrupted, interrupt_on_signals, raise_if_interrupted\n"
        "interrupt_on_signals()\n"
        "raise_if_interrupted()\n"  # no signal yet
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except Interrupted:\n"
        "    pass\n"  # as native code does, which then raises an error of its own
        "try:\n"
        "    raise_if_interrupted()\n"
        "except Interrupted as interruption:\n"
        "    print(interruption.args)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.stdout == "(15,)\n", ended.stderr
