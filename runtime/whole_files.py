"""Writes files that readers see complete or not at all, also if the disk is full or the process is killed."""

import os
import uuid
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write the file, or replace it; its folder must exist. `mode`: its permissions, less the umask.

    Writers of the same file do not disturb each other. If writing fails, an earlier version of the file stays.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
