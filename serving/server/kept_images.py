"""Keeps a sample of the images that clients send, for their review; bounded, and readable by the owner only."""

import hashlib
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
from runtime.whole_files import write_whole
from serving.server.logs import log_event

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_WAITING: Final = 64
"""Images that wait to be written; while the disk is slower than that, further ones are not kept."""
_WAITING_BYTES: Final = 64 * 1024 * 1024
_DIGEST_LENGTH: Final = 16


class KeptImages:
    """A folder with a random sample; once it is full, each new image replaces the oldest. Thread-safe.

    With several models, each has a folder of its own in it, and the oldest image of the model with most images gives
    way: the bounds are those of all together. Files are written by a thread of their own, so that no request waits for
    the disk.
    """

    def __init__(
        self, folder: Path, *, rate: float, max_images: int, max_bytes: int, has_several_models: bool = False
    ) -> None:
        """`rate` is the share of images that is kept. Raises UsageError if others may read the folder."""
        self._folder, self._rate = folder, rate
        self._max_images, self._max_bytes = max_images, max_bytes
        self._has_several_models = has_several_models
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            folders = [folder, *(path for path in folder.iterdir() if has_several_models and path.is_dir())]
            for each in folders:
                if stat.S_IMODE(each.stat().st_mode) & 0o077:
                    raise UsageError(f"--keep-images {folder}: others may read {each}; run: chmod 700 {each}")
            self._sizes = {each: _sizes_of(each) for each in folders}
        except OSError as error:
            raise UsageError(f"--keep-images {folder}: cannot be used: {error.strerror or error}") from None
        self._waiting: queue.Queue[tuple[Path, bytes] | None] = queue.Queue(_WAITING)
        self._waiting_bytes, self._lock = 0, threading.Lock()
        self._thread = threading.Thread(target=self._write_all, name="kept images", daemon=True)
        self._thread.start()

    def offer(self, images: Iterable[bytes], *, model_name: str) -> None:
        """Keep some of these encoded images, which a model has scored."""
        folder = self.folder_of(model_name)
        for content in images:
            if random.random() < self._rate:
                with self._lock:
                    if self._waiting_bytes + len(content) > _WAITING_BYTES:
                        return
                    try:
                        self._waiting.put_nowait((folder, content))
                    except queue.Full:
                        return
                    self._waiting_bytes += len(content)

    def folder_of(self, model_name: str) -> Path:
        """The folder with the images of a model; it is created when the first one is kept."""
        return self._folder / model_name if self._has_several_models else self._folder

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        is_failing = False
        while (waiting := self._waiting.get()) is not None:
            folder, content = waiting
            with self._lock:
                self._waiting_bytes -= len(content)
            try:
                self._write(folder, content)
                is_failing = False
            except OSError as error:
                if not is_failing:
                    log_event("cannot_keep_images", folder=str(folder), reason=str(error))
                is_failing = True

    def _write(self, folder: Path, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()[:_DIGEST_LENGTH]
        kept = self._sizes.get(folder, OrderedDict())
        if len(content) > self._max_bytes or any(path.stem.endswith(digest) for path in kept):
            return
        if folder != self._folder:
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        suffix = suffix_of(content) or min(DICOM_SUFFIXES)
        path = folder / f"{time.time_ns()}-{digest}{suffix}"
        write_whole(path, content, mode=FILE_MODE)
        kept[path] = len(content)
        self._sizes[folder] = kept
        while self._is_over():
            most = max(self._sizes.values(), key=len)
            oldest, _ = most.popitem(last=False)
            oldest.unlink(missing_ok=True)

    def _is_over(self) -> bool:
        images = sum(len(kept) for kept in self._sizes.values())
        return images > self._max_images or sum(sum(kept.values()) for kept in self._sizes.values()) > self._max_bytes


def kept_files(folder: Path) -> list[Path]:
    """The kept images in a folder, the oldest first; [] if it does not exist."""
    return [path for path in sorted(folder.iterdir()) if _is_own(path)] if folder.is_dir() else []


def _sizes_of(folder: Path) -> "OrderedDict[Path, int]":
    return OrderedDict((path, path.stat().st_size) for path in kept_files(folder))


def _is_own(path: Path) -> bool:
    """Whether this class has written a file, which it may therefore remove."""
    number, _, digest = path.stem.partition("-")
    return path.is_file() and number.isdigit() and len(digest) == _DIGEST_LENGTH
