"""Counts the scores that a server returns, in intervals taken from the model's calibration."""

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from runtime.errors import UserError
from runtime.whole_files import write_whole
from schema.artifacts import RECORD_FILE
from schema.calibration_record import CalibrationRecord

Array = np.ndarray[Any, Any]


class ScoresError(UserError):
    """Recorded scores or a calibration record cannot be used; the message names the file and the reason."""


EDGES: Final = 200
"""Resolves the difference between two distributions to half a percent."""


@dataclass(frozen=True)
class ScoreCounts:
    """The number of recorded scores: in total, above the threshold, and per interval between the edges."""

    threshold: float
    images: int
    above_threshold: int
    per_interval: tuple[int, ...]

    def __add__(self, other: "ScoreCounts") -> "ScoreCounts":
        return ScoreCounts(
            self.threshold,
            self.images + other.images,
            self.above_threshold + other.above_threshold,
            tuple(a + b for a, b in zip(self.per_interval, other.per_interval, strict=True)),
        )


def read_calibration(model: Path) -> CalibrationRecord | None:
    """The calibration record of the SavedModel folder `model`; None if it is missing or holds no scores.

    Raises ScoresError if the record is malformed.
    """
    try:
        record = json.loads((model / RECORD_FILE).read_text(encoding="utf-8"))["calibration"]
        calibration = CalibrationRecord.from_json(record)
        return calibration if calibration.scores else None
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        message = f"{model / RECORD_FILE}: the calibration record is malformed ({error}); push the model again"
        raise ScoresError(message) from None


def interval_edges(calibration: CalibrationRecord) -> Array:
    """Ascending quantiles of the scores: a score is counted below the first edge that it does not exceed."""
    ranks = np.linspace(0, len(calibration.scores) - 1, EDGES).round().astype(int)
    return np.unique(np.asarray(calibration.scores)[ranks])


def count_scores(scores: Array, calibration: CalibrationRecord) -> ScoreCounts:
    """The counts of `scores` [n]; a score that is not finite is an alarm."""
    ordered, edges = _with_alarms(scores), interval_edges(calibration)
    per_interval = np.bincount(np.searchsorted(edges, ordered), minlength=len(edges) + 1)
    above = int((ordered > np.float32(calibration.threshold)).sum())
    return ScoreCounts(calibration.threshold, len(ordered), above, tuple(map(int, per_interval)))


def _with_alarms(scores: Array) -> Array:
    return np.where(np.isfinite(scores), scores, np.inf)


class ScoreLog:
    """The score counts of one served version; thread-safe."""

    def __init__(self, calibration: CalibrationRecord) -> None:
        self._edges = interval_edges(calibration)
        self.threshold = calibration.threshold
        self._above = 0
        self._per_interval = np.zeros(len(self._edges) + 1, np.int64)
        self._lock = threading.Lock()

    def add(self, scores: Array) -> None:
        """Add the scores [n] of one answer; a score that is not finite is an alarm."""
        ordered = _with_alarms(scores)
        with self._lock:
            np.add.at(self._per_interval, np.searchsorted(self._edges, ordered), 1)
            self._above += int((ordered > np.float32(self.threshold)).sum())

    def counts(self) -> ScoreCounts:
        """The counts so far."""
        with self._lock:
            per_interval = tuple(map(int, self._per_interval))
            return ScoreCounts(self.threshold, sum(per_interval), self._above, per_interval)

    def write(self, target: Path) -> None:
        """Write the counts as JSON, atomically."""
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, json.dumps(asdict(self.counts())).encode())
