"""Replays images in an exported file's own runtime and compares the results with the SavedModel's."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from runtime.errors import UserError
from runtime.tfrecords import bytes_of, features_of, files_of, text_of
from schema import features
from schema.signatures import IMAGE_BYTES, IS_ANOMALY, RECONSTRUCT_SIGNATURE, SCORE, SCORE_SIGNATURE, THRESHOLD
from serving.exporting import replay
from serving.model.prediction import Predictor, Request

TOLERANCE: Final = 1e-4
"""Largest difference of a score in float32, as a share of the SavedModel's."""
_NEGLIGIBLE: Final = 1e-7


class ExportRefusedError(UserError):
    """The exported file does not decide as the SavedModel does, or cannot be run."""


@dataclass(frozen=True)
class Image:
    """A stored image: its identifier and its encoded bytes."""

    image_id: str
    content: bytes
    is_anomaly: int = features.UNKNOWN


@dataclass(frozen=True)
class Comparison:
    """What two versions of a model say about the same images."""

    images: int
    worst_difference: float
    """The largest difference of a score, as a share of the SavedModel's."""
    same_verdicts: int
    """Images of which both say the same."""
    milliseconds: float
    """Median per image in the target runtime, decoding included, of the first images."""
    served_milliseconds: float
    """The same in the SavedModel."""
    auroc: tuple[float, float] | None = None
    """Of the SavedModel and of the exported file; None unless there are labelled images of both kinds."""


def images_of(pattern: str, at_most: int | None = None) -> list[Image]:
    """The images in files of TFRecords, such as the Evaluator's parity file or those of a split; evenly `at_most`."""
    records = list(tf.data.TFRecordDataset(files_of([pattern])).as_numpy_iterator())
    if at_most is not None and len(records) > at_most:
        records = [records[index] for index in np.linspace(0, len(records) - 1, at_most).round().astype(int)]
    return [_image_of(record) for record in records]


def _image_of(record: bytes) -> Image:
    known = features_of(record)
    labels = known[features.IS_ANOMALY].int64_list.value if features.IS_ANOMALY in known else []
    return Image(
        text_of(known, features.IMAGE_ID), bytes_of(known, features.IMAGE), labels[0] if labels else features.UNKNOWN
    )


def replayed(file: Path, images: Sequence[Image], *, timeout_s: float) -> list[dict[str, float]]:
    """The numbers that `serving.exporting.replay` prints for each image.

    Raises ExportRefusedError if it fails, or takes longer than `timeout_s`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for index, image in enumerate(images):
            Path(folder, f"{index:09d}").write_bytes(image.content)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            done = subprocess.run(
                [sys.executable, "-m", replay.__name__, str(file), folder],
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ExportRefusedError(
                f"{file.name} took more than {timeout_s:.0f} s for {len(images)} images in its runtime"
            ) from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        raise ExportRefusedError(f"{file.name} cannot be run in its runtime: {reason}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def served(folder: Path, images: Sequence[Image]) -> list[dict[str, float]]:
    """Score, threshold and verdict of the SavedModel in `folder` for each image; for the first ones also the time."""
    predictor = Predictor(folder)
    results: list[dict[str, float]] = []
    for number, image in enumerate(images):
        inputs = {IMAGE_BYTES: np.array([image.content], dtype=object)}
        outputs = predictor.predict(Request(inputs, SCORE_SIGNATURE, (SCORE, THRESHOLD, IS_ANOMALY)))
        results.append({name: float(values[0]) for name, values in outputs.items()})
        if number < replay.TIMED:
            started_s = time.perf_counter()
            predictor.predict(Request(inputs, RECONSTRUCT_SIGNATURE))
            results[-1][replay.MILLISECONDS] = 1000.0 * (time.perf_counter() - started_s)
    predictor.close()
    return results


def compare(
    images: Sequence[Image], ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]
) -> Comparison:
    """`ours` of the SavedModel and `theirs` of the exported file, for the same images."""
    differences = _differences(ours, theirs)
    same = sum(one[IS_ANOMALY] == other[IS_ANOMALY] for one, other in zip(ours, theirs, strict=True))
    milliseconds, served_milliseconds = (
        float(np.median([row[replay.MILLISECONDS] for row in rows if replay.MILLISECONDS in row]))
        for rows in (theirs, ours)
    )
    labels = [image.is_anomaly for image in images]
    known = [index for index, label in enumerate(labels) if label != features.UNKNOWN]
    auroc = None
    if len({labels[index] for index in known}) == 2:
        truth = [labels[index] for index in known]
        first, second = (float(roc_auc_score(truth, [side[i][SCORE] for i in known])) for side in (ours, theirs))
        auroc = first, second
    return Comparison(len(ours), max(differences), same, milliseconds, served_milliseconds, auroc)


def require_equal(
    images: Sequence[Image], ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]
) -> None:
    """Raises ExportRefusedError that names the first image with another score or verdict."""
    verdict = ("normal", "anomaly")
    for image, one, other, difference in zip(images, ours, theirs, _differences(ours, theirs), strict=True):
        if not difference <= TOLERANCE or one[IS_ANOMALY] != other[IS_ANOMALY]:
            raise ExportRefusedError(
                f"{image.image_id}: the exported model's score is {other[SCORE]:.7g} "
                f"({verdict[int(other[IS_ANOMALY])]}), but the SavedModel's is {one[SCORE]:.7g} "
                f"({verdict[int(one[IS_ANOMALY])]}); nothing was exported"
            )


def _differences(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> list[float]:
    """Of the two scores of each image, as a share of ours.

    Scores that may be negative, such as those of `ensemble`, cross 0. A difference is a share of the threshold, or of
    the median score, where that is larger.
    """
    scores = np.array([one[SCORE] for one in ours])
    usual = _NEGLIGIBLE
    if (scores < 0.0).any():
        usual = max(abs(ours[0][THRESHOLD]), float(np.median(np.abs(scores[np.isfinite(scores)]))))
    return [_difference(one[SCORE], other[SCORE], usual) for one, other in zip(ours, theirs, strict=True)]


def _difference(one: float, other: float, smallest: float) -> float:
    """Of two scores, as a share of the first, or of `smallest`."""
    if not np.isfinite([one, other]).all():
        return 0.0 if repr(one) == repr(other) else float("inf")
    return abs(one - other) / max(abs(one), smallest)
