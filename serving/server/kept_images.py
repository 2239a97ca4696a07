"""Keeps a sample of the images that clients send, for `autoencoder review`; bounded, and readable by the owner only."""

import hashlib
import os
import queue
import random
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from images.formats import DICOM_SUFFIXES, suffix_of
from runtime.errors import UsageError
from serving.server.logs import log_event

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_WAITING: Final = 64
"""Images that wait to be written; while the disk is slower than that, further ones are not kept."""
_DIGEST_LENGTH: Final = 16


class KeptImages:
    """A folder with a random sample; once it is full, each new image replaces the oldest. Thread-safe.

    Files are written by a thread of their own, so that no request waits for the disk.
    """

    def __init__(self, folder: Path, *, rate: float, max_images: int, max_bytes: int) -> None:
        """`rate` is the share of images that is kept. Raises UsageError if others may read the folder."""
        self._folder, self._rate = folder, rate
        self._max_images, self._max_bytes = max_images, max_bytes
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            mode = stat.S_IMODE(folder.stat().st_mode)
            if mode & 0o077:
                raise UsageError(f"--keep-images {folder}: others may read it; run: chmod 700 {folder}")
            self._sizes = OrderedDict((path, path.stat().st_size) for path in sorted(folder.iterdir()) if _is_own(path))
        except OSError as error:
            raise UsageError(f"--keep-images {folder}: cannot be used: {error.strerror or error}") from None
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write_all, name="kept images", daemon=True)
        self._thread.start()

    def offer(self, images: Iterable[bytes]) -> None:
        """Keep some of these encoded images."""
        for content in images:
            if random.random() < self._rate:
                try:
                    self._waiting.put_nowait(content)
                except queue.Full:
                    return

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        is_failing = False
        while (content := self._waiting.get()) is not None:
            try:
                self._write(content)
                is_failing = False
            except OSError as error:
                if not is_failing:
                    log_event("cannot_keep_images", folder=str(self._folder), reason=str(error))
                is_failing = True

    def _write(self, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]
        if len(content) > self._max_bytes or any(path.stem.endswith(digest) for path in self._sizes):
            return
        suffix = suffix_of(content) or min(DICOM_SUFFIXES)
        path = self._folder / f"{time.time_ns()}-{digest}{suffix}"
        partial = self._folder / f".{path.name}"
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
                file.write(content)
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._sizes[path] = len(content)
        while len(self._sizes) > self._max_images or sum(self._sizes.values()) > self._max_bytes:
            oldest, _ = self._sizes.popitem(last=False)
            oldest.unlink(missing_ok=True)


def _is_own(path: Path) -> bool:
    """Whether this class has written a file, which it may therefore remove."""
    number, _, digest = path.stem.partition("-")
    return path.is_file() and number.isdigit() and len(digest) == _DIGEST_LENGTH
