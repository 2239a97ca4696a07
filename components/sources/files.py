"""What sources that read files share: access checks, fingerprints, links, and reading on several cores."""

import hashlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from runtime import reader_processes
from runtime.cores import usable_cores
from runtime.errors import UsageError
from runtime.object_store import AnyPath, ObjectStatus, RemotePath

LINKED_OUTSIDE: Final = "links to a file outside the data folder; copy the file there, or set data.follow_links=true"
_FEW: Final = 16
"""Above this number of objects, one listing replaces a request per object."""
_THREADS_REMOTE: Final = 16
"""An object store has a high latency but serves many requests at a time."""
_AHEAD_OF_EACH: Final = 8
_MOST_AHEAD: Final = 64
"""Results that wait for one that takes longer: at most so many images are in memory."""

_MANY: Final = 1000
"""Reading so many files takes longer than starting the processes."""
_AT_ONCE, _LONG_S = _AHEAD_OF_EACH // 2, 0.02
"""A thread is given at most so many items, of which all together may take so long."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass
class _Several(Generic[_Result]):
    """What a thread read at once; `error` stopped it before the rest."""

    results: list[_Result]
    error: Exception | None
    seconds: float


class DataError(UsageError):
    """The data cannot be used; the message names the cause and the remedy."""


@dataclass(frozen=True)
class SourceFiles:
    """The files of a source, by their names below `folder`."""

    folder: AnyPath
    names: tuple[str, ...]

    def fingerprint(self) -> str:
        """BLAKE2b over the name, size and modification time of every file as it is now."""
        listed = None
        if isinstance(self.folder, RemotePath) and len(self.names) > _FEW:
            listed = dict(self.folder.files_below())
        digest = hashlib.blake2b(digest_size=16)
        for name in self.names:
            status = _status(self.folder / name) if listed is None else listed.get(name)
            size_and_time = f"{status.st_size}\0{status.st_mtime_ns}" if status else "absent"
            digest.update(os.fsencode(f"{name}\0{size_and_time}\n"))
        return digest.hexdigest()


def _status(path: AnyPath) -> os.stat_result | ObjectStatus | None:
    """Status of the link itself if it dangles; None if there is no file. Reading rejects both with their name."""
    for status in (path.stat, path.lstat):
        try:
            return status()
        except OSError:
            continue
    return None


def read_ahead(
    read: Callable[[_Item], _Result], items: Iterable[_Item], folder: AnyPath, *, workers: int | None = None
) -> Iterator[_Result]:
    """`read` of each item below `folder`, in order; at most `workers` items at a time, and a few results wait.

    `workers` of None are as many as the process may use cores. They are processes if there are many local files and
    this process was copied for that (`runtime.reader_processes`); otherwise, they are threads. Decoding, hashing and
    compression release Python's lock, but handing it over takes a fifth of the time. A thread is given several items at
    once if they are quickly read, because waking it for each would take as long.
    """
    threads = workers or max(usable_cores(), 1 if isinstance(folder, Path) else _THREADS_REMOTE)
    if threads == 1:
        yield from map(read, items)
        return
    is_local = isinstance(folder, Path) and reader_processes.is_prepared()
    if is_local and isinstance(items, Sequence) and len(items) >= _MANY:
        yield from reader_processes.read_all(read, items, processes=threads)
        return
    rest, at_once, ahead = iter(items), 1, 0
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[int, Future[_Several[_Result]]]] = deque()
        while True:
            while ahead + at_once <= min(_AHEAD_OF_EACH * threads, _MOST_AHEAD):
                if not (several := tuple(itertools.islice(rest, at_once))):
                    break
                waiting.append((len(several), pool.submit(_read_several, read, several)))
                ahead += len(several)
            if not waiting:
                return
            count, future = waiting.popleft()
            done = future.result()
            yield from done.results
            if done.error:
                raise done.error
            ahead -= count
            at_once = max(1, min(int(_LONG_S * count / max(done.seconds, 1e-9)), _AT_ONCE))


def _read_several(read: Callable[[_Item], _Result], items: tuple[_Item, ...]) -> _Several[_Result]:
    """`read` of each item up to the first that raises an error."""
    started = time.perf_counter()
    done: _Several[_Result] = _Several([], None, 0.0)
    try:
        for item in items:
            done.results.append(read(item))
    except Exception as error:
        done.error = error
    done.seconds = time.perf_counter() - started
    return done


def read_bytes(path: AnyPath, size_bytes: int) -> bytes:
    """The content of a file of about this size: `Path.read_bytes` asks for it again, and copies what it has read."""
    if isinstance(path, RemotePath):
        return path.read_bytes()
    parts = []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while part := os.read(descriptor, size_bytes + 1):
            parts.append(part)
            if len(part) == size_bytes:
                break
    finally:
        os.close(descriptor)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Links:
    """Tells whether links lead outside `folder`, its own links resolved. An object store has no links."""

    def __init__(self, folder: AnyPath, *, follow_links: bool) -> None:
        self._within = os.path.realpath(folder) if isinstance(folder, Path) and not follow_links else None
        self._parents: dict[str, bool] = {}

    def lead_outside(self, path: AnyPath) -> bool:
        """Whether `path`, its links resolved, lies outside the folder; False for a link loop.

        Links of a folder are resolved once for all files in it.
        """
        if self._within is None:
            return False
        text = str(path)
        if os.path.islink(text):  # noqa: PTH114
            return self._is_outside(text)
        parent = os.path.dirname(text)  # noqa: PTH120 - a million files
        if parent not in self._parents:
            self._parents[parent] = self._is_outside(parent)
        return self._parents[parent]

    def require_inside(self, path: AnyPath) -> None:
        """Raise DataError if links lead `path` outside the folder."""
        if self.lead_outside(path):
            raise DataError(f"{path}: {LINKED_OUTSIDE}")

    def _is_outside(self, path: str) -> bool:
        return os.path.commonpath([self._within or "", os.path.realpath(path)]) != self._within


def require_folder(folder: AnyPath) -> None:
    """Raise DataError unless `folder` is a folder that can be listed."""
    if not folder.exists():
        raise DataError(f"{folder}: no such folder; set data.path to the folder that holds the images")
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; set data.path to the folder that holds the images")
    if isinstance(folder, Path) and not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: permission denied; make it readable for this user")


def require_file(path: AnyPath, *, kind: str) -> None:
    """Raise DataError unless `path` is a readable file; `kind` describes the expected file in the message."""
    if not path.exists():
        raise DataError(f"{path}: no such file; set data.path to {kind}")
    if not path.is_file():
        raise DataError(f"{path}: not a file; set data.path to {kind}")
    if isinstance(path, Path) and not os.access(path, os.R_OK):
        raise DataError(f"{path}: permission denied; make it readable for this user")
