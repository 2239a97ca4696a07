"""The folder of a review: a history that only grows, the CSV manifest that follows from it, and copies of images."""

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from images.formats import IMAGE_SUFFIXES, suffix_of
from runtime.errors import UsageError, UserError
from runtime.whole_files import write_whole
from schema.reviewed import MANIFEST_FILE
from serving.reviewing.decisions import (
    CHOICES,
    DEFECT,
    FORMULA_STARTS,
    LONGEST_NAME,
    UNSURE,
    Decision,
    Subject,
    checked_name,
    is_contested,
)

HISTORY_FILE: Final = "history.jsonl"
COLUMNS: Final = ("path", "label", "split", "is_anomaly", "mask", "image_id", "time", "reviewer", "contested")
"""The first five are those of `data.source: csv`, which ignores the others."""
_IMAGES, _MASKS = "images", "masks"
_OWNER_ONLY, _OWNER_ONLY_FOLDER = 0o600, 0o700
_LONGEST_STEM = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class DecisionError(UserError):
    """A decision cannot be recorded; the message says why."""


class ReviewFolder:
    """A folder with the manifest `reviewed.csv`, `history.jsonl`, and copies of all images that were decided about.

    Any number of threads and processes may use it: a decision is one line, appended under a lock and synchronised with
    the disk before the manifest is replaced. Only its owner may read it.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the folder if necessary; raises UsageError if it cannot be used."""
        self.folder = folder
        try:
            for path in (folder, folder / _IMAGES, folder / _MASKS):
                path.mkdir(mode=_OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be created: {error.strerror}; choose another folder") from None
        self._mutex = threading.Lock()
        self._read_bytes = self._number = 0
        self._decisions: dict[int, Decision] = {}
        with self._locked():
            if self._number:  # a process may have been killed before it wrote the manifest
                self._write_manifest()

    @property
    def manifest(self) -> Path:
        """The CSV manifest."""
        return self.folder / MANIFEST_FILE

    def decide(
        self, subject: Subject, decision: str, *, reviewer: str, content: bytes, label: str = "", mask: bytes = b""
    ) -> tuple[Decision, list[Decision]]:
        """Record a decision: (the decision, those that others have made about the same image and that differ).

        `label` is the class of a defect. Raises UsageError for an unknown decision or an unsuitable name, and
        DecisionError, with nothing recorded, if the disk refuses it.
        """
        if decision not in CHOICES:
            raise UsageError(f"decision {decision!r}: must be {', '.join(CHOICES)}")
        reviewer = checked_name("reviewer", reviewer)
        label = checked_name("class", label or DEFECT) if decision == DEFECT else ""
        with self._recording() as history:
            path = self._kept(_IMAGES, subject, content)
            made = Decision(
                number=self._number + 1,
                time=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                reviewer=reviewer,
                digest=subject.digest,
                name=subject.name,
                decision=decision,  # type: ignore[arg-type]
                label=label,
                normal_label=subject.label,
                split=subject.split,
                path=path,
                mask=self._kept(_MASKS, subject, mask) if mask and decision == DEFECT else "",
            )
            others = [one for one in self._by_image().get(subject.digest, []) if one.reviewer != reviewer]
            self._append(history, asdict(made))
        return made, [one for one in others if one.verdict != made.verdict]

    def undo(self, reviewer: str) -> Decision | None:
        """Withdraw this reviewer's last decision that still stands, so that the one before it counts; None if none."""
        reviewer = checked_name("reviewer", reviewer)
        with self._recording() as history:
            last = max((n for n, one in self._decisions.items() if one.reviewer == reviewer), default=None)
            if last is None:
                return None
            withdrawn = self._decisions[last]
            time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            self._append(
                history, {"number": self._number + 1, "time": time, "reviewer": reviewer, "undoes": withdrawn.number}
            )
        return withdrawn

    def standing(self) -> dict[str, list[Decision]]:
        """Digest -> the last decision of each reviewer that was not withdrawn, the latest at the end, which counts."""
        with self._locked():
            return self._by_image()

    def _by_image(self) -> dict[str, list[Decision]]:
        found: dict[str, dict[str, Decision]] = {}
        for one in self._decisions.values():
            of_image = found.setdefault(one.digest, {})
            of_image.pop(one.reviewer, None)
            of_image[one.reviewer] = one
        return {digest: list(of_image.values()) for digest, of_image in found.items()}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[io.FileIO]:
        """The history, open for appending and read to its end, while no other thread or process uses it."""
        with self._mutex, _opened(self.folder / HISTORY_FILE) as history:
            fcntl.flock(history, fcntl.LOCK_EX)
            history.seek(self._read_bytes)
            lines = history.read()
            complete = lines[: lines.rfind(b"\n") + 1]
            if complete != lines:  # its writer was killed
                history.truncate(self._read_bytes + len(complete))
            for line in complete.splitlines():
                self._apply(self._parsed(line))
            self._read_bytes += len(complete)
            yield history

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            parsed: dict[str, Any] = json.loads(line)
        except ValueError:
            shown = line[:LONGEST_NAME].decode("utf-8", "replace")
            raise UsageError(
                f"{self.folder / HISTORY_FILE}: the line {shown!r} is damaged: remove it, or restore the file"
            ) from None
        return parsed

    @contextlib.contextmanager
    def _recording(self) -> Iterator[io.FileIO]:
        try:
            with self._locked() as history:
                yield history
        except OSError as error:
            raise DecisionError(
                f"{self.folder}: the decision cannot be recorded: {error.strerror or error}; make room or correct the "
                "permissions, and decide again"
            ) from None

    def _append(self, history: io.FileIO, line: dict[str, Any]) -> None:
        data, start = json.dumps(line).encode() + b"\n", self._read_bytes
        try:
            history.seek(start)
            if history.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(history.fileno())
            self._apply(line)
            self._write_manifest()
        except OSError:
            os.truncate(self.folder / HISTORY_FILE, start)
            self._forget()
            raise
        self._read_bytes = start + len(data)

    def _forget(self) -> None:
        """Start from an unread history."""
        self._read_bytes = self._number = 0
        self._decisions = {}

    def _apply(self, line: dict[str, Any]) -> None:
        self._number = line["number"]
        if "undoes" in line:
            self._decisions.pop(line["undoes"], None)
        else:
            known = {field.name for field in fields(Decision)}
            self._decisions[self._number] = Decision(**{name: value for name, value in line.items() if name in known})

    def _write_manifest(self) -> None:
        """Replace the manifest: a line for each image whose latest decision is normal or defect, in that order."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS)  # ends lines with CR LF, as RFC 4180, and so quotes both in names
        table.writeheader()
        for of_image in self._by_image().values():
            one = of_image[-1]
            if one.decision != UNSURE:
                is_defect = one.decision == DEFECT
                row = {name: getattr(one, name) for name in ("path", "mask", "time", "reviewer")}
                row |= (
                    {"label": one.label, "split": ""} if is_defect else {"label": one.normal_label, "split": one.split}
                )
                image_id = f"./{one.name}" if one.name.startswith(FORMULA_STARTS) else one.name
                row |= {"image_id": image_id, "is_anomaly": int(is_defect), "contested": int(is_contested(of_image))}
                table.writerow(row)
        content = text.getvalue().encode("utf-8", "backslashreplace")
        if not self.manifest.exists() or self.manifest.read_bytes() != content:
            write_whole(self.manifest, content, mode=_OWNER_ONLY)

    def _kept(self, folder: str, subject: Subject, content: bytes) -> str:
        """The relative path of a copy of the file."""
        suffix = suffix_of(content) or Path(subject.name).suffix.lower()
        stem = _UNSAFE.sub("_", Path(subject.name).stem)[:_LONGEST_STEM]
        relative = f"{folder}/{subject.digest[:16]}-{stem}{suffix if suffix in IMAGE_SUFFIXES else ''}"
        if not (self.folder / relative).exists():
            write_whole(self.folder / relative, content, mode=_OWNER_ONLY)
        return relative


def _opened(path: Path) -> io.FileIO:
    return os.fdopen(
        os.open(path, os.O_RDWR | os.O_CREAT, _OWNER_ONLY), "r+b", buffering=0
    )  # a buffer would be written after all
