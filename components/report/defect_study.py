"""Synthetic defects in this run's normal test images: how often each is found, with pictures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from components.report.data_uris import pixels_uri
from components.report.scored_images import Model, Sample, read_test_images, score_all
from components.report.synthetic_defects import DEFECTS, Detection, Pixels, detect, png_bytes

_IMAGES = 32
_NEEDED = 0.9


def study_defects(
    model: Model, examples_uri: str, sample: Sample, *, image: Mapping[str, Any], threshold: float, seed: int
) -> tuple[int, list[Detection]]:
    """(images used, one Detection per kind), over normal images that raise no alarm while they are unharmed.

    Images are scaled to the model's size (`image`: the configuration's section) before they are harmed.
    """
    normal = np.flatnonzero(sample.normal & (sample.scores <= threshold))
    chosen = np.random.default_rng(seed).permutation(normal)[:_IMAGES]
    positions = [sample.positions[row] for row in chosen]
    scaled = [_scaled(found.encoded, image) for found in read_test_images(examples_uri, positions)]
    if not scaled:
        return 0, []
    scores = score_all(model, [png_bytes(pixels) for pixels in scaled])
    by_score = [row for row in np.argsort(scores, kind="stable") if scores[row] <= threshold]
    if not by_score:
        return 0, []
    typical = by_score[len(by_score) // 2]
    images = [scaled[row] for row in (typical, *(row for row in by_score if row != typical))]

    def score(encoded: Sequence[bytes]) -> Any:
        return score_all(model, encoded)

    return len(images), [detect(defect, images, score, threshold, seed=seed) for defect in DEFECTS]


def defects_document(images: int, detections: Sequence[Detection], *, threshold: float, seed: int) -> dict[str, Any]:
    """What programs read: the artifact's `synthetic_defects.json`."""
    kinds = [detection.as_json() for detection in detections]
    return {"images": images, "threshold": threshold, "seed": seed, "needed": _NEEDED, "kinds": kinds}


def pictures_of(detection: Detection, threshold: float) -> list[dict[str, Any]]:
    """One picture per size."""
    return [
        {"uri": pixels_uri(pixels), "size": size, "found": score > threshold}
        for pixels, size, score in zip(detection.examples, detection.sizes, detection.example_scores, strict=True)
    ]


def _scaled(encoded: bytes, image: Mapping[str, Any]) -> Pixels:
    """An image file in the model's size and channels: [H, W] or [H, W, 3]."""
    size = (image["width_px"], image["height_px"])
    opened = Image.open(io.BytesIO(encoded)).convert("L" if image["channels"] == 1 else "RGB")
    return np.asarray(ImageOps.pad(opened, size) if image["fit"] == "pad" else opened.resize(size))
