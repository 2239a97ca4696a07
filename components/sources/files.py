"""What sources that read files share: access checks, fingerprints, links, and reading on several cores."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

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

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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
    for stat in (path.stat, path.lstat):
        try:
            return stat()
        except OSError:
            continue
    return None


def read_ahead(
    read: Callable[[_Item], _Result], items: Iterable[_Item], folder: AnyPath, *, workers: int | None = None
) -> Iterator[_Result]:
    """`read` of each item below `folder`, in order; at most `workers` items at a time, and a few results wait.

    `workers` of None are as many as the process may use cores. They are threads: decoding, hashing and compression
    release Python's lock, and a process for each core would have to import TensorFlow.
    """
    threads = workers or max(usable_cores(), 1 if isinstance(folder, Path) else _THREADS_REMOTE)
    if threads == 1:
        yield from map(read, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > min(_AHEAD_OF_EACH * threads, _MOST_AHEAD):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def folder_of_links(folder: AnyPath, *, follow_links: bool) -> str | None:
    """The folder that links must stay in: `folder` with its own links resolved, or None if links may lead anywhere.

    An object store has no links.
    """
    return os.path.realpath(folder) if isinstance(folder, Path) and not follow_links else None


def is_linked_outside(path: AnyPath, folder: str | None) -> bool:
    """Whether `path`, its links resolved, lies outside the folder from `folder_of_links`; False for a link loop."""
    return folder is not None and os.path.commonpath([folder, os.path.realpath(str(path))]) != folder


def require_inside(path: AnyPath, folder: str | None) -> None:
    """Raise DataError if links lead `path` outside the folder from `folder_of_links`."""
    if is_linked_outside(path, folder):
        raise DataError(f"{path}: {LINKED_OUTSIDE}")


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
