"""Decides which of the seen files are complete. Knows neither disks nor clocks."""

from dataclasses import dataclass
from typing import Final

from serving.watching.found import Found

SETTLE_S: Final = 2.0
"""A file of this age without a change is complete, unless a notification says that someone is writing it."""
WRITING_SETTLE_S: Final = 60.0
"""The same while a program has the file open: it may pause, but may also never report the end."""


@dataclass(frozen=True)
class _Pending:
    found: Found
    due_s: float
    is_open: bool


class Arrivals:
    """Files on their way: pending until they are complete, ready until they are taken, done afterwards.

    Every time is in seconds of the same monotonic clock.
    """

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self._ready: dict[str, Found] = {}
        self._done: dict[str, Found] = {}

    @property
    def waiting(self) -> int:
        """The number of files that are neither done nor taken."""
        return len(self._pending) + len(self._ready)

    @property
    def ready(self) -> int:
        """The number of complete files."""
        return len(self._ready)

    def is_done(self, found: Found) -> bool:
        """Whether exactly this file is done."""
        return self._done.get(found.name) == found

    def opened(self, found: Found, now_s: float) -> None:
        """A program has created or written the file, and has not closed it yet."""
        if not self.is_done(found):
            self._ready.pop(found.name, None)
            # A hard link is created complete, and never closed.
            settle_s = SETTLE_S if found.links > 1 else WRITING_SETTLE_S
            self._pending[found.name] = _Pending(found, now_s + settle_s, is_open=True)

    def listed(self, found: Found, now_s: float) -> None:
        """A listing shows the file: it is complete once it stays the same."""
        known = self._pending.get(found.name)
        if self._ready.get(found.name) == found or self.is_done(found) or (known and known.found == found):
            return
        self._ready.pop(found.name, None)
        is_open = known is not None and known.is_open
        self._pending[found.name] = _Pending(found, now_s + (WRITING_SETTLE_S if is_open else SETTLE_S), is_open)

    def completed(self, found: Found) -> None:
        """The file was closed after writing, or renamed, or is an object."""
        if not self.is_done(found):
            self._pending.pop(found.name, None)
            self._ready[found.name] = found

    def retry(self, found: Found, due_s: float) -> None:
        """Look at the file again at `due_s`, if it has not changed by then."""
        self._pending[found.name] = _Pending(found, due_s, is_open=False)

    def settle(self, now_s: float) -> None:
        """Make the files ready that have not changed for long enough."""
        for name in [name for name, pending in self._pending.items() if pending.due_s <= now_s]:
            self._ready[name] = self._pending.pop(name).found

    def take(self, limit: int) -> list[Found]:
        """The first ready files, in the order in which they became complete."""
        return [self._ready.pop(name) for name in list(self._ready)[:limit]]

    def done(self, found: Found) -> None:
        """The file needs no more work."""
        self._done[found.name] = found

    def forget_missing(self, present: set[str]) -> None:
        """Drop what is no longer in a complete listing."""
        for files in (self._pending, self._done):
            for name in [name for name in files if name not in present]:
                del files[name]
