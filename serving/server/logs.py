"""Structured logging: JSON lines, or short text on a terminal."""

import json
import logging
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

from schema.features import printable

LOGGER = logging.getLogger("serving")


def log_event(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log `event` and its `fields`."""
    LOGGER.log(level, event, extra={"fields": fields})


class RepeatedFailure:
    """Logs the failure of something that is tried again and again: once, when its reason changes, and its end."""

    def __init__(self, event: str, **fields: str) -> None:
        self._event, self._fields = event, fields
        self._reason: str | None = None

    def has_occurred(self, error: Exception) -> None:
        """The last attempt has failed."""
        reason = f"{type(error).__name__}: {error}"
        if reason != self._reason:
            LOGGER.error(self._event, extra={"fields": {**self._fields, "error": reason}})
        self._reason = reason

    def has_ended(self) -> None:
        """The last attempt has succeeded."""
        if self._reason is not None:
            LOGGER.info(f"{self._event}_no_more", extra={"fields": self._fields})
        self._reason = None


def log_to(stream: TextIO = sys.stderr) -> None:
    """Write the server's log to `stream`, as text if it is a terminal and as JSON lines otherwise."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Text() if stream.isatty() else _JsonLines())
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def redirect_standard_error() -> None:
    """Make JSON lines of everything that this process writes to standard error from now on.

    Image libraries and TensorFlow write to it directly. The process that converts the lines ends with this one.
    """
    converter = Path(__file__).with_name("stderr_lines.py")
    process = subprocess.Popen(
        [sys.executable, str(converter)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    sys.stderr.flush()
    os.dup2(process.stdin.fileno(), sys.stderr.fileno())
    process.stdin.close()


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in getattr(record, "fields", {}).items())
        text = f"{record.getMessage().replace('_', ' ')} {fields}".rstrip()
        text = printable(text)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text
