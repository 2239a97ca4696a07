"""Compares the family `features` with the bare backbone: what joining the maps, the fit and the score add to it."""

import time
from collections.abc import Callable
from typing import Final

import numpy as np
import tensorflow as tf
import tf_keras as keras

from bench.comparison import Comparison
from bench.timing import alternately
from trainer.data.dataset import Images, ImageSet
from trainer.families.registry import build_autoencoder
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

_AREA: Final = "features"
_IMAGES: Final = {"tiny": 16, "small": 64, "full": 256}
_SIDES_PX: Final = {"tiny": 64, "small": 224, "full": 224}
_SCORED: Final = 16
_BATCH: Final = 16
_MAX_OF_BACKBONE, _MAX_OF_EXTRACTION, _MAX_OF_ONE = 1.3, 10.0, 1.5


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Crops of two photographs: the maps of all, a fit to all, and the score of one image at a time."""
    images = _crops(_IMAGES[size], _SIDES_PX[size])
    settings = TrainerSettings.model_validate({"preset": "features", "steady_against": []})
    image = ImageSettings(height_px=images.shape[1], width_px=images.shape[2], channels=3)
    keras.utils.set_random_seed(0)
    errors = build_autoencoder(image, settings).feature_errors
    assert errors is not None
    calls = errors.maps.backbone, errors.maps, errors
    backbone, extract, score = (tf.function(call, autograph=False) for call in calls)

    def fit() -> None:
        errors.fit(ImageSet(len(images), image.shape, images))

    def row(
        what: str, reference: str, ours: Callable[[], object], theirs: Callable[[], object], most: float, count: int
    ) -> Comparison:
        ours_s, reference_s = alternately(lambda: _seconds(ours), lambda: _seconds(theirs), repetitions)
        return Comparison(_AREA, what, reference, ours_s, reference_s, most, count)

    one_by_one = images[:_SCORED, np.newaxis]
    for call in (backbone, extract, score):  # traces both shapes
        call(images[:_BATCH])
        call(one_by_one[0])
    return [
        row("maps", "the backbone alone", lambda: _all(extract, images), lambda: _all(backbone, images),
            _MAX_OF_BACKBONE, len(images)),
        row("fit", "the maps of the same images", fit, lambda: _all(extract, images), _MAX_OF_EXTRACTION, len(images)),
        row("score, one image at a time", "the backbone alone", lambda: [score(one) for one in one_by_one],
            lambda: [backbone(one) for one in one_by_one], _MAX_OF_ONE, _SCORED),
    ]  # fmt: skip


def _all(call: Callable[[Images], object], images: Images) -> None:
    for start in range(0, len(images), _BATCH):
        call(images[start : start + _BATCH])


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _crops(count: int, side_px: int) -> Images:
    """[count, side, side, 3] in [0, 1]."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    random = np.random.default_rng(0)
    crops = []
    for row in range(count):
        photograph = photographs[row % len(photographs)]
        top, left = random.integers(0, np.array(photograph.shape[:2]) - side_px)
        crops.append(photograph[top : top + side_px, left : left + side_px])
    return np.stack(crops).astype(np.float32) / np.float32(255)
