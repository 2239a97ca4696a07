"""The command line in a forked process that has TensorFlow Extended loaded already, with a fault in it.

A process of its own, because it is to be killed; forked, because loading takes longer than these runs.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repository import REPOSITORY

TIMEOUT_S = 600
_LOADED = multiprocessing.get_context("forkserver")
_LOADED.set_forkserver_preload(["loaded"])

Fault = Callable[..., None]
"""Called in the new process, before the command line."""


@dataclass(frozen=True)
class Ended:
    """How a process ended; a negative `code` is the signal that ended it."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """What --json printed."""
        assert self.stdout, self.stderr
        return json.loads(self.stdout)


class Started:
    """A command that runs; its output goes to files beside `folder`."""

    def __init__(self, folder: Path, arguments: list[str], fault: Fault | None = None, *details: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # The fork server is started by the first process, and has its environment and module path from it.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        self.process = _LOADED.Process(
            target=_command_line, args=(self._stdout, self._stderr, arguments, fault, details)
        )
        self.process.start()

    def send(self, number: int) -> None:
        """A signal, as a shell or an init system sends it."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Until it has ended; what does not end in time is killed, and fails the test."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {timeout_s} s: {self.stderr}")
        return Ended(self.process.exitcode, self._stdout.read_text(), self.stderr)

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._stderr.read_text() if self._stderr.exists() else ""


def _command_line(
    stdout: Path, stderr: Path, arguments: list[str], fault: Fault | None, details: tuple[Any, ...]
) -> None:
    from pipeline.cli import main

    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(REPOSITORY)
    tempfile.tempdir = str(stdout.parent)  # such a process ends without deleting its temporary files
    if fault:
        fault(*details)
    main(arguments)
