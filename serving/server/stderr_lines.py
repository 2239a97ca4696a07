"""Copies lines from standard input to standard error; a line that is not a JSON object becomes one.

A process of its own, so that what a library writes while it crashes is not lost. Run by its path: it imports nothing of
this project.
"""

import json
import sys
from datetime import datetime, timezone

LIBRARY_MESSAGE = "library_message"


def as_json(line: bytes) -> bytes:
    """The line, if it is a JSON object; otherwise a log line with it as the message."""
    try:
        if isinstance(json.loads(line), dict):
            return line.rstrip(b"\r\n") + b"\n"
    except ValueError:
        pass
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    message = line.decode("utf-8", "replace").rstrip("\r\n")
    record = {"time": time, "level": "warning", "event": LIBRARY_MESSAGE, "message": message}
    return json.dumps(record).encode() + b"\n"


def main() -> None:
    """Copy until the end of standard input."""
    for line in sys.stdin.buffer:
        if line.strip():
            sys.stderr.buffer.write(as_json(line))
            sys.stderr.buffer.flush()


if __name__ == "__main__":
    main()
