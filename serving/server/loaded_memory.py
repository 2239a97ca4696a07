"""The memory that loaded versions take, and room for more: the least recently used are unloaded."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from runtime.memory import return_free_memory
from schema.artifacts import SAVED_MODEL_FILE

LOADS_AT_ONCE: Final = 2
_BYTES_PER_GRAPH_BYTE: Final = 50
"""A session keeps several copies of its graph: those of 0.7 and 0.9 MB took 43 to 48 times as much."""
_BYTES_PER_OTHER_BYTE: Final = 1.2
"""TensorFlow Serving's estimate."""


class NoRoomError(Exception):
    """Another version would have to be unloaded."""


class Evictable(Protocol):
    """A loaded version."""

    size_bytes: int

    def last_used(self) -> tuple[bool, float]:
        """Whether a request is using it, and when one last began to: the lowest is unloaded first."""


def estimated_bytes(folder: Path) -> int:
    """The memory that the version in `folder` takes once it has answered its warm-up requests."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    graph = sizes.pop(folder / SAVED_MODEL_FILE, 0)
    return round(graph * _BYTES_PER_GRAPH_BYTE + sum(sizes.values()) * _BYTES_PER_OTHER_BYTE)


class LoadedMemory:
    """The sizes of all loaded versions, kept below a limit (None: none); thread-safe."""

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._loads = threading.Semaphore(LOADS_AT_ONCE)
        self._unload: dict[Evictable, Callable[[], None]] = {}
        self._reserved = 0

    @property
    def used_bytes(self) -> int:
        """Of the loaded versions, and those that are being loaded."""
        with self._lock:
            return self._used()

    def has_room(self, size_bytes: int) -> bool:
        """Whether nothing would have to be unloaded."""
        with self._lock:
            return self._has_room(size_bytes)

    @contextlib.contextmanager
    def room(self, size_bytes: int, *, may_unload: bool) -> Iterator[None]:
        """Keep room for a version while the block loads it.

        With `may_unload`, the least recently used versions are unloaded, those that no request uses first, and a
        version that is larger than the limit is loaded alone. Otherwise raises NoRoomError if they would have to be.
        """
        if not may_unload and not self.has_room(size_bytes):
            raise NoRoomError
        with self._loads:
            with self._lock:
                if not may_unload and not self._has_room(size_bytes):  # another load has taken it
                    raise NoRoomError
                self._reserved += size_bytes
                unload = [self._unload.pop(version) for version in self._to_unload()]
            try:
                for each in unload:
                    each()
                if unload:
                    gc.collect()  # sessions are in reference cycles
                    return_free_memory()
                yield
            finally:
                with self._lock:
                    self._reserved -= size_bytes

    def add(self, version: Evictable, unload: Callable[[], None]) -> None:
        """Count a loaded version; `unload` is called at most once, to make room."""
        with self._lock:
            self._unload[version] = unload

    def remove(self, version: Evictable) -> None:
        """Count a version no longer, which may have made way already."""
        with self._lock:
            self._unload.pop(version, None)

    def _has_room(self, size_bytes: int) -> bool:
        return self._max_bytes is None or self._used() + size_bytes <= self._max_bytes

    def _used(self) -> int:
        return self._reserved + sum(version.size_bytes for version in self._unload)

    def _to_unload(self) -> list[Evictable]:
        if self._max_bytes is None:
            return []
        excess, chosen = self._used() - self._max_bytes, []
        for version in sorted(self._unload, key=lambda version: version.last_used()):
            if excess <= 0:
                break
            chosen.append(version)
            excess -= version.size_bytes
        return chosen
