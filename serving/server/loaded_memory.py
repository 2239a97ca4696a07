"""The memory that loaded versions take, and room for more: the least recently used are unloaded."""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from runtime.memory import return_free_memory
from schema.artifacts import SAVED_MODEL_FILE

LOADS_AT_ONCE: Final = 2
HANGING_AFTER_S: Final = 120.0
"""A load that takes longer is no longer one of these: its folder may hang for ever, which must not stop the others."""
_LOOK_AGAIN_S: Final = 1.0
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


@dataclass(eq=False)
class _Turn:
    """A load that waits until fewer than LOADS_AT_ONCE others run."""

    rank: int
    urgent_since: Callable[[], float | None]
    granted: threading.Event = field(default_factory=threading.Event)

    def order(self) -> tuple[bool, float]:
        """The lowest is next: what is urgent before all others, the longest first."""
        since_s = self.urgent_since()
        return since_s is None, self.rank if since_s is None else since_s


class LoadedMemory:
    """The sizes of all loaded versions, kept below a limit (None: none), and the queue of loads; thread-safe."""

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._queue: list[_Turn] = []
        self._loading: dict[_Turn, float] = {}
        """When the loads that are running began."""
        self._unload: dict[Evictable, Callable[[], None]] = {}
        self._reserved = 0

    @property
    def used_bytes(self) -> int:
        """Of the loaded versions, and those that are being loaded."""
        with self._lock:
            return self._used()

    @contextlib.contextmanager
    def room(
        self, size_bytes: int, *, rank: int, urgent_since: Callable[[], float | None]
    ) -> Iterator[Callable[[Evictable, Callable[[], None]], None]]:
        """Wait for a turn, and keep room for a version while the block loads it.

        Two versions are loaded at a time, not counting those that hang: first those that are urgent, the longest first
        (`urgent_since`, on the monotonic clock; None: it is not urgent), then by `rank`. For an urgent one, the least
        recently used versions are unloaded, those that no request uses first, and a version that is larger than the
        limit is loaded alone.
        Otherwise raises NoRoomError if they would have to be.

        The block calls the function that it gets with the loaded version, which is counted from then on, and a
        function that unloads it, which is called at most once, to make room.
        """
        if urgent_since() is None and not self._has_room(size_bytes):
            raise NoRoomError
        turn = self._queued(_Turn(rank, urgent_since))
        while not turn.granted.wait(_LOOK_AGAIN_S):  # a load that hangs does not tell when it begins to
            with self._lock:
                self._grant()
        reserved = 0

        def keep(version: Evictable, unload: Callable[[], None]) -> None:
            nonlocal reserved
            with self._lock:
                self._reserved -= reserved
                reserved = 0
                self._unload[version] = unload

        try:
            is_urgent = urgent_since() is not None
            with self._lock:
                if not is_urgent and not self._fits(size_bytes):  # another load has taken it, or nobody waits any more
                    raise NoRoomError
                reserved = size_bytes
                self._reserved += reserved
                unload = [self._unload.pop(version) for version in self._to_unload()]
            for each in unload:
                each()
            if unload:
                gc.collect()  # sessions are in reference cycles
                return_free_memory()
            yield keep
        finally:
            with self._lock:
                self._reserved -= reserved
                del self._loading[turn]
                self._grant()

    def remove(self, version: Evictable) -> None:
        """Count a version no longer, which may have made way already."""
        with self._lock:
            self._unload.pop(version, None)

    def _queued(self, turn: _Turn) -> _Turn:
        with self._lock:
            self._queue.append(turn)
            self._grant()
        return turn

    def _grant(self) -> None:
        now_s = time.monotonic()
        busy = sum(now_s - began_s < HANGING_AFTER_S for began_s in self._loading.values())
        for turn in sorted(self._queue, key=_Turn.order)[: max(0, LOADS_AT_ONCE - busy)]:
            self._queue.remove(turn)
            self._loading[turn] = now_s
            turn.granted.set()

    def _has_room(self, size_bytes: int) -> bool:
        """Whether nothing would have to be unloaded."""
        with self._lock:
            return self._fits(size_bytes)

    def _fits(self, size_bytes: int) -> bool:
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
