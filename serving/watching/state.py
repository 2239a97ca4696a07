"""What a watch must not forget: scored images, waiting events and counts, in one SQLite file."""

import contextlib
import fcntl
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from runtime.errors import UsageError
from serving.watching.found import Found
from serving.watching.results import Position

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS watched (place TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    name TEXT, size_bytes INTEGER, mtime_ns INTEGER, inode INTEGER, verdict TEXT, time_s REAL,
    PRIMARY KEY (name, size_bytes, mtime_ns));
CREATE INDEX IF NOT EXISTS images_by_inode ON images (inode, mtime_ns);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT, event TEXT, overlay BLOB);
CREATE INDEX IF NOT EXISTS events_by_sink ON events (sink, number);
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS results (number INTEGER, jsonl_bytes INTEGER, csv_bytes INTEGER);
"""
_REMEMBERED_S: Final = 90 * 86400.0
_SECOND_NS: Final = 1_000_000_000
SCORED, DELIVERED, DROPPED, REFUSED = "scored", "delivered", "dropped", "refused"


@dataclass(frozen=True)
class Event:
    """An anomaly for one receiver; `overlay` is a PNG file, or empty."""

    number: int
    sink: str
    event: str
    overlay: bytes


class State:
    """Thread-safe. Every change is one transaction; raises sqlite3.Error if it cannot be written."""

    def __init__(self, path: Path, place: str) -> None:
        """Raises UsageError if the file belongs to another folder, is in use, or is no state file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock_file = path.with_name(f"{path.name}.lock").open("w")
        try:
            self._lock_out_others()
            self._connection = self._open(place)
        except BaseException:
            self._lock_file.close()
            raise
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file, and let another process use it."""
        with self._lock:
            self._connection.close()
            self._lock_file.close()

    def knows(self, found: Found, *, is_gone: Callable[[str], bool]) -> bool:
        """Whether this image is scored, perhaps under a name for which `is_gone(name)` holds: then it was renamed."""
        version = (found.key, found.size_bytes, found.mtime_ns)
        exact = "SELECT 1 FROM images WHERE name = ? AND size_bytes = ? AND mtime_ns = ?"
        if self._rows(exact, *version):
            return True
        if not found.inode or found.mtime_ns % _SECOND_NS == 0:  # a coarse clock cannot tell two files apart
            return False
        renamed = "SELECT name FROM images WHERE inode = ? AND mtime_ns = ? AND size_bytes = ?"
        return any(is_gone(name) for (name,) in self._rows(renamed, found.inode, found.mtime_ns, found.size_bytes))

    def record(
        self,
        images: Sequence[tuple[Found, str]],
        events: Sequence[tuple[str, str, bytes]],
        position: Position,
        *,
        max_queued_bytes: int,
    ) -> Counter[str]:
        """Add images with verdicts, and events as (sink, event, overlay); the oldest are dropped from a full queue.

        Returns the number of dropped events by sink.
        """
        now_s, dropped = time.time(), Counter[str]()
        with self._transaction() as connection:
            rows = [(f.key, f.size_bytes, f.mtime_ns, f.inode, verdict, now_s) for f, verdict in images]
            connection.executemany("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.executemany("INSERT INTO events (sink, event, overlay) VALUES (?, ?, ?)", events)
            for sink in {sink for sink, _, _ in events}:
                dropped[sink] = _drop_oldest(connection, sink, max_queued_bytes)
            for _, verdict in images:
                _count(connection, verdict, 1)
            _count(connection, SCORED, len(images))
            _count(connection, DROPPED, dropped.total())
            connection.execute("DELETE FROM results")
            connection.execute("INSERT INTO results VALUES (?, ?, ?)", astuple(position))
        return dropped

    def position(self) -> Position:
        """Where the results ended at the last `record`."""
        rows = self._rows("SELECT number, jsonl_bytes, csv_bytes FROM results")
        return Position(*rows[0]) if rows else Position()

    def next_event(self, sink: str) -> Event | None:
        """The oldest event that waits for `sink`."""
        query = "SELECT number, sink, event, overlay FROM events WHERE sink = ? ORDER BY number LIMIT 1"
        rows = self._rows(query, sink)
        return Event(*rows[0]) if rows else None

    def finish(self, event: Event, outcome: str) -> None:
        """Remove an event from the queue: DELIVERED or REFUSED."""
        with self._transaction() as connection:
            removed = connection.execute("DELETE FROM events WHERE number = ?", [event.number]).rowcount
            _count(connection, outcome, removed)

    def waiting_events(self) -> dict[str, int]:
        """The number of events in the queue, by sink."""
        return dict(self._rows("SELECT sink, COUNT(*) FROM events GROUP BY sink"))

    def counts(self) -> Counter[str]:
        """What was counted since the file was created: verdicts, SCORED, DELIVERED, DROPPED, REFUSED."""
        return Counter(dict(self._rows("SELECT name, value FROM counts")))

    def forget_removed(self, is_gone: Callable[[str], bool]) -> int:
        """Forget images that are old, and gone from the watched folder; returns their number."""
        old = self._rows("SELECT rowid, name FROM images WHERE time_s < ?", time.time() - _REMEMBERED_S)
        gone = [(row,) for row, name in old if is_gone(name)]
        with self._transaction() as connection:
            connection.executemany("DELETE FROM images WHERE rowid = ?", gone)
        return len(gone)

    def _lock_out_others(self) -> None:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"{self._path} is in use by another `autoencoder watch`; end it, or choose another --state"
            raise UsageError(message) from None

    def _open(self, place: str) -> sqlite3.Connection:
        if self._path.is_dir():
            raise UsageError(f"--state {self._path}: is a folder; give a file")
        self._path.touch(mode=0o600)  # addresses of receivers may hold passwords
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_TABLES)
            watched = connection.execute("SELECT place FROM watched").fetchall()
            if watched and watched[0][0] != place:
                raise UsageError(f"{self._path} belongs to {watched[0][0]}; choose another --state for {place}")
            if not watched:
                connection.execute("INSERT INTO watched VALUES (?)", [place])
        except sqlite3.DatabaseError as error:
            connection.close()
            if is_temporary(error):
                raise
            raise UsageError(f"{self._path} cannot be used as the state of a watch: {error}") from None
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have ended it
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


def is_temporary(error: BaseException) -> bool:
    """Whether SQLite failed because a disk is full, a file may not grow, or another program holds a lock."""
    return isinstance(error, sqlite3.OperationalError) and any(
        sign in str(error) for sign in ("full", "disk I/O", "locked")
    )


def _count(connection: sqlite3.Connection, name: str, more: int) -> None:
    query = "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
    connection.execute(query, (name, more))


def _drop_oldest(connection: sqlite3.Connection, sink: str, max_bytes: int) -> int:
    """Remove the oldest events of `sink` until the rest has at most `max_bytes`; returns how many."""
    size = "LENGTH(event) + LENGTH(overlay)"
    (total,) = connection.execute(f"SELECT COALESCE(SUM({size}), 0) FROM events WHERE sink = ?", [sink]).fetchone()
    dropped = 0
    while total > max_bytes:
        oldest = f"SELECT number, {size} FROM events WHERE sink = ? ORDER BY number LIMIT 1"
        number, length = connection.execute(oldest, [sink]).fetchone()
        connection.execute("DELETE FROM events WHERE number = ?", [number])
        total, dropped = total - length, dropped + 1
    return dropped
