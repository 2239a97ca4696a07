"""Allows one run at a time in a folder, and tells whether a run that has no verdict still runs.

The lock is the kernel's (flock): it ends with its process, also after `kill -9` or a power failure.
"""

import contextlib
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final, TextIO

RUNNING: Final = "running"
ENDED: Final = "ended"
_FILE: Final = ".lock"
_HOLDER: Final = re.compile(r"process \d+ of (?P<host>.+), started (?P<started>.+)")
_STARTED: Final = "%Y-%m-%d %H:%M:%S %z"


@contextlib.contextmanager
def run_lock(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Allow one run at a time in a folder; a second run waits, and passes to `tell` which process it waits for."""
    with (folder / _FILE).open("a+") as lock:
        if not _taken(lock, fcntl.LOCK_EX):
            lock.seek(0)
            tell(f"waiting for another run in {folder} ({lock.read().strip()})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} of {socket.gethostname()}, started {time.strftime(_STARTED)}")
        lock.flush()
        yield


def state_of_run(folder: Path, started_ms: int) -> str:
    """RUNNING or ENDED, for the newest run in a folder that has no verdict; or the machine where it may still run.

    `started_ms`: when the run began, after its process had the lock.
    """
    try:
        with (folder / _FILE).open() as lock:
            holder, is_free = _HOLDER.fullmatch(lock.read().strip()), _taken(lock, fcntl.LOCK_SH)
    except OSError:
        return ENDED
    if holder is None or _seconds(holder["started"]) > started_ms / 1000:
        return ENDED  # another process has had the lock since
    if not is_free:
        return RUNNING
    # Not every network file system shows another machine's locks.
    return ENDED if holder["host"] == socket.gethostname() else holder["host"]


def _taken(lock: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seconds(started: str) -> float:
    """Seconds since 1970; infinity for what an older version wrote, without a time zone."""
    try:
        return datetime.strptime(started, _STARTED).timestamp()
    except ValueError:
        return float("inf")
