"""Has what is scored moved away from what the model was calibrated with? Answered without any label.

Two questions, each by a lower confidence bound on the size of the effect: with many images every difference is
significant, and few say little, so neither a p-value nor the difference itself can decide.
"""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Final

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from schema.calibration_record import CalibrationRecord
from serving.score_log import ScoreCounts, ScoresError, count_scores, interval_edges

CONFIDENCE: Final = 0.99
MIN_DISTANCE: Final = 0.1
"""Distributions this far apart: at some score, the shares of images below it differ by ten points."""
MIN_EXCESS: Final = 2.0
"""Alarms this many times as often as the false-alarm rate."""


@dataclass(frozen=True)
class Drift:
    """What was found, each number with its bound at 99 % confidence; `sentence` says what to do about it."""

    images: int
    distance: float
    distance_at_least: float
    alarm_rate: float
    alarm_rate_at_least: float
    false_alarm_rate: float
    alarm_rate_explained: float
    """What the threshold, calibrated with so many images as it was, may raise on normal images."""
    should_retrain: bool
    sentence: str


def drift_of(counts: ScoreCounts, calibration: CalibrationRecord) -> Drift:
    """Hold recorded scores against the calibration's.

    Distance: Kolmogorov and Smirnov's, less what chance explains in either sample by the inequality of Dvoretzky,
    Kiefer and Wolfowitz with Massart's constant (1990). Alarms: Clopper and Pearson's bound (1934) on their rate,
    against the rate that the conformal threshold may have, whose distribution is known (Vovk 2012, Prop. 2a).
    """
    if counts.images == 0:
        raise ScoresError("no scores were recorded")
    distance = _distance(counts, calibration)
    at_least = max(0.0, distance - _chance(counts.images) - _chance(calibration.images))
    alarms, rate = counts.above_threshold, calibration.false_alarm_rate
    alarms_at_least = float(stats.beta.ppf(1 - CONFIDENCE, alarms, counts.images - alarms + 1)) if alarms else 0.0
    rank = math.ceil((calibration.images + 1) * (1 - rate) - 1e-9)
    explained = max(MIN_EXCESS * rate, float(stats.beta.ppf(CONFIDENCE, calibration.images + 1 - rank, rank)))
    has_moved, alarms_too_often = at_least > MIN_DISTANCE, alarms_at_least > explained
    drift = Drift(
        images=counts.images,
        distance=distance,
        distance_at_least=at_least,
        alarm_rate=alarms / counts.images,
        alarm_rate_at_least=alarms_at_least,
        false_alarm_rate=rate,
        alarm_rate_explained=explained,
        should_retrain=has_moved or alarms_too_often,
        sentence="",
    )
    return Drift(**{**vars(drift), "sentence": _sentence(drift, calibration, alarms_too_often=alarms_too_often)})


def read_scores(path: Path, calibration: CalibrationRecord) -> ScoreCounts:
    """The scores in a file of `autoencoder score` (JSON Lines or CSV) or of the server, or in a folder of such files.

    Raises ScoresError for a file that holds none, or those of a model with another threshold.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl", ".csv"))
        if not files:
            raise ScoresError(f"{path}: holds no .json, .jsonl or .csv file")
        return reduce(add, (read_scores(file, calibration) for file in files))
    try:
        if path.suffix == ".json":
            document = json.loads(path.read_text(encoding="utf-8"))
            counts = ScoreCounts(**{**document, "per_interval": tuple(document["per_interval"])})
            thresholds = {counts.threshold}
        else:
            rows = [(float(row["score"]), float(row["threshold"])) for row in _rows(path) if row["score"]]
            thresholds = {threshold for _, threshold in rows}
            counts = count_scores(np.array([score for score, _ in rows], np.float32), calibration)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoresError(f"{path}: holds no recorded scores ({type(error).__name__}: {error})") from None
    if any(not math.isclose(threshold, calibration.threshold, rel_tol=1e-5) for threshold in thresholds):
        raise ScoresError(f"{path}: these scores are another model's, whose threshold is {thresholds.pop():.6g}")
    return counts


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            yield from csv.DictReader(file)
        else:
            yield from (json.loads(line) for line in file)


def _distance(counts: ScoreCounts, calibration: CalibrationRecord) -> float:
    """The largest difference between the two distribution functions, at the edges."""
    recorded = np.cumsum(counts.per_interval[:-1]) / counts.images
    calibrated = np.searchsorted(calibration.scores, interval_edges(calibration), side="right") / len(
        calibration.scores
    )
    return float(np.abs(recorded - calibrated).max())


def _chance(images: int) -> float:
    """How far an empirical distribution function may lie from the true one; half the doubt to either sample."""
    return math.sqrt(math.log(2 / ((1 - CONFIDENCE) / 2)) / (2 * images))


def _sentence(drift: Drift, calibration: CalibrationRecord, *, alarms_too_often: bool) -> str:
    images = f"{drift.images:,} images"
    if alarms_too_often:
        return (
            f"Re-train, unless these are real defects: {drift.alarm_rate:.1%} of {images} raise an alarm, "
            f"where at most {drift.alarm_rate_explained:.1%} of normal ones do; look at a few of them first."
        )
    if drift.should_retrain:
        return (
            f"Re-train: the scores of {images} are spread otherwise than those of the model's own normal images "
            f"(distance {drift.distance:.2f}, surely above {drift.distance_at_least:.2f})."
        )
    unseen = MIN_DISTANCE + _chance(drift.images) + _chance(calibration.images)
    return (
        f"No need to re-train: the scores of {images} are spread like those of the model's own normal images "
        f"(distance {drift.distance:.2f}; one below {unseen:.2f} would not show with so few images)."
    )
