"""How the scores of what was asked are spread, against those that the model was calibrated with: counts only."""

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from runtime.errors import UserError
from schema.artifacts import RECORD_FILE
from schema.calibration_record import CalibrationRecord

Array = np.ndarray[Any, Any]


class ScoresError(UserError):
    """Recorded scores, or the model's record of its own, cannot be used; the message names the file and says why."""


EDGES: Final = 200
"""A difference between two distributions is seen to within half a percent."""


@dataclass(frozen=True)
class ScoreCounts:
    """Recorded scores: how many, how many above the threshold, and how many per interval between the edges."""

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

    Raises ScoresError where the record is not one that this project writes.
    """
    try:
        record = json.loads((model / RECORD_FILE).read_text(encoding="utf-8"))["calibration"]
        calibration = CalibrationRecord.from_json(record)
        return calibration if calibration.scores else None
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        told = f"{model / RECORD_FILE} is no record of a calibration; push the model anew ({error})"
        raise ScoresError(told) from None


def interval_edges(calibration: CalibrationRecord) -> Array:
    """Quantiles of the scores, ascending: a recorded score is counted below the first that it does not exceed."""
    ranks = np.linspace(0, len(calibration.scores) - 1, EDGES).round().astype(int)
    return np.unique(np.asarray(calibration.scores)[ranks])


def count_scores(scores: Array, calibration: CalibrationRecord) -> ScoreCounts:
    """The counts of `scores` [n]; one that is not a number is left out."""
    finite, edges = scores[~np.isnan(scores)], interval_edges(calibration)
    per_interval = np.bincount(np.searchsorted(edges, finite), minlength=len(edges) + 1)
    above = int((finite > np.float32(calibration.threshold)).sum())
    return ScoreCounts(calibration.threshold, len(finite), above, tuple(map(int, per_interval)))


class ScoreLog:
    """The counts of one served version; safe for many threads."""

    def __init__(self, calibration: CalibrationRecord) -> None:
        self._edges = interval_edges(calibration)
        self._threshold = calibration.threshold
        self._above = 0
        self._per_interval = np.zeros(len(self._edges) + 1, np.int64)
        self._lock = threading.Lock()

    def add(self, scores: Array, is_anomaly: Array) -> None:
        """Count the scores [n] of one answer."""
        intervals = np.searchsorted(self._edges, scores[~np.isnan(scores)])
        with self._lock:
            np.add.at(self._per_interval, intervals, 1)
            self._above += int(is_anomaly.sum())

    def counts(self) -> ScoreCounts:
        """Everything counted so far."""
        with self._lock:
            per_interval = tuple(map(int, self._per_interval))
            return ScoreCounts(self._threshold, sum(per_interval), self._above, per_interval)

    def write(self, target: Path) -> None:
        """Write the counts as JSON, all at once."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_text(json.dumps(asdict(self.counts())), encoding="utf-8")
        partial.replace(target)
