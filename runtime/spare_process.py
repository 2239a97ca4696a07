"""Programs that must run in a process of their own, without paying for their imports twice."""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, NoReturn

_HEAVY = "tensorflow"


@dataclass(frozen=True)
class _Spare:
    """A process that has imported `module` and waits for arguments; its output goes to two files."""

    module: str
    pid: int
    requests: int
    """File descriptor; the process ends if it is closed before arguments were written."""
    stdout: IO[str]
    stderr: IO[str]


_spares: list[_Spare] = []


def prepare(module: str) -> bool:
    """Import the program `module`, and keep a process that has imported that much for `run_program`.

    Nothing that the program does not import itself may be there to help it, and a process cannot be copied once
    TensorFlow's threads run. So this does nothing, and returns False, if TensorFlow has been imported already.
    """
    if _HEAVY in sys.modules:
        return False
    importlib.import_module(module)
    files = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 (the process outlives this block)
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads. Those of the imports belong to NumPy and jemalloc, which expect to be copied.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(writing)
        _wait_and_run(module, reading, *files)
    os.close(reading)
    _spares.append(_Spare(module, pid, writing, *files))
    return True


def run_program(module: str, arguments: Sequence[str], *, timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run `module` as `python -m` does, without GPUs, in a process that has imported nothing else that is heavy.

    Its function `main` takes the arguments and returns the exit status. Uses the process that `prepare` keeps, once;
    otherwise it starts a new one. Raises subprocess.TimeoutExpired.
    """
    for spare in _spares:
        if spare.module == module:
            _spares.remove(spare)
            return _run_spare(spare, arguments, timeout_s)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)


def _run_spare(spare: _Spare, arguments: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    with contextlib.suppress(BrokenPipeError), os.fdopen(spare.requests, "w") as requests:  # killed: see its status
        requests.write(json.dumps(list(arguments)))
    process = os.pidfd_open(spare.pid)
    try:
        ended, _, _ = select.select([process], [], [], timeout_s)
        if not ended:
            os.kill(spare.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(spare.pid, 0)[1])
    finally:
        os.close(process)
    if not ended:
        raise subprocess.TimeoutExpired(spare.module, timeout_s)
    outputs = []
    for file in (spare.stdout, spare.stderr):
        with file:
            file.seek(0)
            outputs.append(file.read())
    return subprocess.CompletedProcess([spare.module, *arguments], status, *outputs)


def _wait_and_run(module: str, requests: int, stdout: IO[str], stderr: IO[str]) -> NoReturn:
    """The life of the spare process: it never returns to the code that it was copied from."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        sys.stdout, sys.stderr = stdout, stderr
        with os.fdopen(requests) as file:
            request = file.read()
        if request:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
            status = importlib.import_module(module).main(json.loads(request))
    except BaseException:
        traceback.print_exc()
    finally:
        stdout.flush()
        stderr.flush()
        os._exit(status)
