"""Results as JSON lines and CSV, in numbered files that are full at a given size."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from serving.scoring import ROW_COLUMNS, csv_row

COLUMNS: Final = ("time", *ROW_COLUMNS, "model")
KEPT_FILES: Final = 10
"""Older files are removed."""
_SUFFIXES: Final = (".jsonl", ".csv")


@dataclass(frozen=True)
class Position:
    """Where results end: the current file's number, and the length of both files."""

    number: int = 1
    jsonl_bytes: int = 0
    csv_bytes: int = 0


class Results:
    """Appends results; what was appended after the last known position is removed on construction."""

    def __init__(self, prefix: Path, position: Position, *, max_bytes: int) -> None:
        self._prefix = prefix
        self._max_bytes = max_bytes
        prefix.parent.mkdir(parents=True, exist_ok=True)
        self.position = self._cut(position)
        if self.position.csv_bytes and not self._has_columns():
            self.position = self._next()

    @contextlib.contextmanager
    def appended(self, rows: Sequence[dict[str, Any]]) -> Iterator[Position]:
        """Append `rows` with the keys COLUMNS; remove them again if writing or the block fails."""
        start = (
            self._next()
            if max(self.position.jsonl_bytes, self.position.csv_bytes) >= self._max_bytes
            else self.position
        )
        try:
            end = Position(
                start.number,
                self._write(start.number, ".jsonl", start.jsonl_bytes, "".join(json.dumps(row) + "\n" for row in rows)),
                self._write(start.number, ".csv", start.csv_bytes, _as_csv(rows, with_header=not start.csv_bytes)),
            )
            yield end
        except BaseException:
            self._cut(self.position)
            raise
        self.position = end
        self._remove_old()

    def files(self) -> list[Path]:
        """The current files."""
        return [self._path(self.position.number, suffix) for suffix in _SUFFIXES]

    def _has_columns(self) -> bool:
        """Whether the current table has today's columns; that of an older version may have others."""
        with self._path(self.position.number, ".csv").open(encoding="utf-8", newline="") as table:
            return next(csv.reader(table), []) == list(COLUMNS)

    def _next(self) -> Position:
        return Position(self.position.number + 1)

    def _path(self, number: int, suffix: str) -> Path:
        return self._prefix.with_name(f"{self._prefix.name}-{number:06d}{suffix}")

    def _write(self, number: int, suffix: str, start: int, text: str) -> int:
        """Returns the length of the file; raises OSError, such as for a full disk."""
        data = text.encode("utf-8", "backslashreplace")
        with self._path(number, suffix).open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return start + len(data)

    def _cut(self, position: Position) -> Position:
        """Shorten both files to `position` and remove later ones; returns where they end in fact."""
        lengths = []
        for suffix, length in zip(_SUFFIXES, (position.jsonl_bytes, position.csv_bytes), strict=True):
            self._path(position.number + 1, suffix).unlink(missing_ok=True)
            path = self._path(position.number, suffix)
            actual = path.stat().st_size if path.exists() else 0
            if actual > length:
                os.truncate(path, length)
            lengths.append(min(actual, length))
        return Position(position.number, *lengths)

    def _remove_old(self) -> None:
        number = self.position.number - KEPT_FILES
        while number > 0 and (paths := [path for path in (self._path(number, s) for s in _SUFFIXES) if path.exists()]):
            for path in paths:
                path.unlink()
            number -= 1


def _as_csv(rows: Sequence[dict[str, Any]], *, with_header: bool) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if with_header:
        table.writeheader()
    table.writerows(csv_row(row) for row in rows)
    return text.getvalue()
