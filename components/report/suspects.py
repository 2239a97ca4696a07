"""The training images that the model explains worst, as the Calibrator found them, with pictures."""

import io
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tfx.dsl.io import fileio

from components.report.data_uris import file_uri, heat_uri
from components.report.facts import Document, ReportInputs
from components.report.scored_images import Values, read_images
from schema.artifacts import SUSPECT_MAPS_FILE, SUSPECTS_FILE

_HEAT_PX = 144


def read_suspects(calibration_uri: str | None) -> list[Document]:
    """The lines of `suspects.jsonl`; [] for a model of a version that wrote none."""
    path = os.path.join(calibration_uri or "", SUSPECTS_FILE)  # noqa: PTH118 - may be remote
    if calibration_uri is None or not fileio.exists(path):
        return []
    with fileio.open(path, "rb") as file:
        return [json.loads(line) for line in file.read().decode("utf-8").splitlines()]


def suspect_pictures(inputs: ReportInputs, suspects: Sequence[Document]) -> list[dict[str, Any]]:
    """The first suspects with `original` and `anomaly_map`."""
    if not suspects:
        return []
    with fileio.open(os.path.join(inputs.calibration or "", SUSPECT_MAPS_FILE), "rb") as file:  # noqa: PTH118
        maps = np.load(io.BytesIO(file.read()), allow_pickle=False)
    shown = suspects[: len(maps)]
    images = {
        (split, image.position): image.encoded
        for split in {suspect["split"] for suspect in shown}
        for image in read_images(inputs.examples, [s["position"] for s in shown if s["split"] == split], split)
    }
    return [
        {
            **{key: suspect[key] for key in ("of", "score", "unseen", "deviations")},
            "id": suspect["image_id"],
            "original": file_uri(images[suspect["split"], suspect["position"]]),
            "anomaly_map": heat_uri(_enlarged(anomaly_map)),
        }
        for suspect, anomaly_map in zip(shown, maps, strict=True)
    ]


def _enlarged(anomaly_map: Values) -> Values:
    """A map smaller than the page's pictures, enlarged bilinearly."""
    scale = max(1.0, _HEAT_PX / max(anomaly_map.shape))
    size = [round(side * scale) for side in anomaly_map.shape]
    enlarged: Values = tf.image.resize(anomaly_map[..., np.newaxis], size).numpy()[..., 0]
    return enlarged
