"""Checks that a model was trained on the images of the `train` split, preprocessed by Transform."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from runtime.errors import UserError
from runtime.tfrecords import files_of, spread_records
from runtime.traced_once import traced_once
from schema.features import IMAGE, NORMALISED, OFFSET, SCALE
from schema.signatures import DEVIATION

_TRAIN_IMAGES: Final = 2000
_TEST_IMAGES: Final = 100
_TOLERANCE: Final = 0.1
"""Relative. The mean image comes from a sample, and a GPU multiplies with a precision of 19 bits."""
_NEGLIGIBLE: Final = 1e-5

Images = npt.NDArray[np.float64]
PixelsOf = Callable[[Sequence[bytes]], Images]
"""Serialized examples [N] -> pixels [N, H, W, C] in [0, 1]."""


class TrainingDataMismatchError(UserError):
    """The model was trained on other images than this run's, or with another preprocessing."""


def require_same_training_data(signature: Any, *, pixels_of: PixelsOf, train: str, test: str) -> None:
    """Compare a model, by its signature `examples`, with the splits in the folders `train` and `test`.

    The model outputs each test image's squared difference from the mean of the images that it was trained on. This is
    computed again from the training split by `pixels_of`. Raises TrainingDataMismatchError if the two differ.
    """
    mean_image = pixels_of(list(spread_records([f"{train}/*"], _TRAIN_IMAGES).as_numpy_iterator())).mean(axis=0)
    records = list(tf.data.TFRecordDataset(files_of([f"{test}/*"])).take(_TEST_IMAGES).as_numpy_iterator())
    expected = float(np.mean((pixels_of(records) - mean_image) ** 2))
    reported = float(np.mean(signature(examples=tf.constant(records))[DEVIATION].numpy()))
    if not abs(reported - expected) <= _TOLERANCE * expected + _NEGLIGIBLE:
        raise TrainingDataMismatchError(
            "the model was trained on other images than those of split 'train', or its preprocessing is not "
            f"Transform's: it reports a mean squared difference of {reported:.4g} between test images and the mean "
            f"training image, but that is {expected:.4g}. Its errors are meaningless, so it is not pushed; check what "
            "was changed in trainer/"
        )


def pixels_by_transform(layer: Any) -> PixelsOf:
    """What preprocesses images by Transform's graph, given its Keras layer."""

    @traced_once
    def of_batch(serialized: tf.Tensor) -> tf.Tensor:
        parsed = tf.io.parse_example(serialized, {IMAGE: tf.io.FixedLenFeature([], tf.string)})
        found = layer({IMAGE: parsed[IMAGE]})
        return found[NORMALISED] * found[SCALE][0] + found[OFFSET][0]

    def of_all(records: Sequence[bytes]) -> Images:
        starts = range(0, len(records), _TEST_IMAGES)
        batches = [of_batch(tf.constant(records[start : start + _TEST_IMAGES])) for start in starts]
        return np.concatenate([batch.numpy().astype(np.float64) for batch in batches])

    return of_all
