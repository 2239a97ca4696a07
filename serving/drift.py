"""Detects, without labels, whether scores have drifted away from those of the model's calibration.

Two tests, each on a lower confidence bound of the effect's size: with many images every difference is significant,
and with few the estimate is uncertain, so neither a p-value nor the estimate alone can decide.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from schema.calibration_record import CalibrationRecord, conformal_rank
from serving.score_log import ScoreCounts, ScoresError, count_scores, interval_edges

CONFIDENCE: Final = 0.99
MIN_DISTANCE: Final = 0.1
"""The distributions differ by this much: at some score, the shares of images below it differ by ten points."""
MIN_EXCESS: Final = 2.0
"""Alarms are this many times as frequent as the false-alarm rate."""


@dataclass(frozen=True)
class Drift:
    """Estimates with their bounds at 99 % confidence; `sentence` explains the result and what to do."""

    images: int
    distance: float
    distance_at_least: float
    alarm_rate: float
    alarm_rate_at_least: float
    false_alarm_rate: float
    alarm_rate_explained: float
    """The rate of alarms on normal images that the calibration's size allows for."""
    should_retrain: bool
    sentence: str


def drift_of(counts: ScoreCounts, calibration: CalibrationRecord) -> Drift:
    """Compare recorded scores with the calibration's.

    Distance: Kolmogorov-Smirnov, minus what chance explains in each sample according to the inequality of Dvoretzky,
    Kiefer and Wolfowitz with Massart's constant (1990). Alarms: the Clopper-Pearson bound (1934) on their rate,
    compared with a quantile of the conformal threshold's alarm rate (Vovk 2012, Prop. 2a).
    """
    if counts.images == 0:
        raise ScoresError("no scores were recorded: score images first, or serve with --record_scores")
    distance = _distance(counts, calibration)
    at_least = max(0.0, distance - _chance(counts.images) - _chance(calibration.images))
    alarms, rate = counts.above_threshold, calibration.false_alarm_rate
    alarms_at_least = float(stats.beta.ppf(1 - CONFIDENCE, alarms, counts.images - alarms + 1)) if alarms else 0.0
    rank = conformal_rank(calibration.images, rate)
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


def read_scores(paths: Iterable[Path], calibration: CalibrationRecord) -> ScoreCounts:
    """The scores in files written by `autoencoder score` or `watch` (JSON Lines or CSV) or the server, or in folders.

    A watch writes every result to NAME.jsonl and to NAME.csv: of two such files, only the first is read. Raises
    ScoresError if a file holds no scores, or those of a model with a different threshold.
    """
    files = {file.resolve(): file for path in paths for file in _files(path)}
    copies = {file for file in files if file.suffix == ".csv" and file.with_suffix(".jsonl") in files}
    return reduce(add, (_counts(file, calibration) for path, file in files.items() if path not in copies))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl", ".csv"))
    if not files:
        raise ScoresError(f"{path}: contains no .json, .jsonl or .csv file")
    return files


def _counts(file: Path, calibration: CalibrationRecord) -> ScoreCounts:
    try:
        if file.suffix == ".json":
            document = json.loads(file.read_text(encoding="utf-8"))
            counts = ScoreCounts(**{**document, "per_interval": tuple(document["per_interval"])})
            thresholds = {counts.threshold}
        else:
            rows = [row for row in _rows(file) if row["verdict"] != "failed"]
            thresholds = {float(row["threshold"]) for row in rows}
            counts = count_scores(np.array([_score(row) for row in rows], np.float32), calibration)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScoresError(f"{file}: contains no recorded scores ({type(error).__name__}: {error})") from None
    if any(not math.isclose(threshold, calibration.threshold, rel_tol=1e-5) for threshold in thresholds):
        raise ScoresError(f"{file}: the scores come from a different model (threshold {thresholds.pop():.6g})")
    return counts


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".csv":
            yield from csv.DictReader(lines)
        else:
            yield from (json.loads(line) for line in lines)


def _score(row: dict[str, Any]) -> float:
    """The score of an image, NaN if it was not finite: then JSON has null, and CSV nothing."""
    return math.nan if row["score"] in (None, "") else float(row["score"])


def _distance(counts: ScoreCounts, calibration: CalibrationRecord) -> float:
    """The largest difference between the two distribution functions at the edges."""
    recorded = np.cumsum(counts.per_interval[:-1]) / counts.images
    scores = calibration.scores
    calibrated = np.searchsorted(scores, interval_edges(calibration), side="right") / len(scores)
    return float(np.abs(recorded - calibrated).max())


def _chance(images: int) -> float:
    """How far an empirical distribution function may deviate from the true one; each sample gets half the risk."""
    return math.sqrt(math.log(2 / ((1 - CONFIDENCE) / 2)) / (2 * images))


def _sentence(drift: Drift, calibration: CalibrationRecord, *, alarms_too_often: bool) -> str:
    images = f"{drift.images:,} images"
    if alarms_too_often:
        return (
            f"Retrain, unless these are real defects: {drift.alarm_rate:.1%} of {images} raise an alarm, "
            f"but at most {drift.alarm_rate_explained:.1%} of normal images would; look at a few of them first."
        )
    if drift.should_retrain:
        return (
            f"Retrain: the scores of {images} are distributed differently from those of the normal images the model "
            f"was calibrated with (distance {drift.distance:.2f}, at 99 % confidence at least "
            f"{drift.distance_at_least:.2f})."
        )
    undetectable = MIN_DISTANCE + _chance(drift.images) + _chance(calibration.images)
    return (
        f"No need to retrain: the scores of {images} are distributed like those of the normal images the model was "
        f"calibrated with (distance {drift.distance:.2f}; with this many images, the smallest detectable distance is "
        f"{undetectable:.2f})."
    )
