"""Checks that a model was trained on the images of the `train` split, preprocessed by Transform."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.evaluation.bare_examples import bared
from images.region_of_interest import region_of_interest
from runtime.errors import UserError
from runtime.tfrecords import as_many_as_fit, files_of, spread_records
from runtime.traced_once import traced_once
from schema.features import IMAGE, NORMALISED, OFFSET, SCALE
from schema.signatures import DEVIATION

_TRAIN_IMAGES: Final = 2000
_TEST_IMAGES: Final = 100
_TOLERANCE: Final = 0.1
"""Relative. The mean image comes from a sample, and a GPU multiplies with a precision of 19 bits."""
_NEGLIGIBLE: Final = 1e-5

Images = npt.NDArray[np.float32]
PixelsOf = Callable[[Iterable[bytes]], Iterator[Images]]
"""Serialized examples -> batches of their pixels [B, H, W, C] in [0, 1], as many at a time as fit."""


class TrainingDataMismatchError(UserError):
    """The model was trained on other images than this run's, or with another preprocessing."""


def require_same_training_data(
    signature: Any, image: Mapping[str, Any], *, pixels_of: PixelsOf, train: str, test: str
) -> None:
    """Compare a model, by its signature `examples`, with the splits in the folders `train` and `test`.

    `image`: the section of the model's record.

    The model outputs each test image's squared difference from the mean of the images that it was trained on. This is
    computed again from the training split by `pixels_of`. Raises TrainingDataMismatchError if the two differ.
    """
    learnt = spread_records([f"{train}/*"], _TRAIN_IMAGES).as_numpy_iterator()
    total, count = 0.0, 0
    for pixels in pixels_of(learnt):
        total, count = total + pixels.sum(axis=0, dtype=np.float64), count + len(pixels)
    of_test = tf.data.TFRecordDataset(files_of([f"{test}/*"])).take(_TEST_IMAGES)
    records = [bared(record) for record in of_test.as_numpy_iterator()]
    deviations = []
    for pixels in pixels_of(records):
        inside = region_of_interest(image, pixels)
        counted = 1.0 if inside is None else inside[..., np.newaxis]
        deviations.append(np.square((pixels - total / count) * counted).mean(axis=(1, 2, 3)))
    expected = float(np.concatenate(deviations).mean())
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

    def of_all(records: Iterable[bytes]) -> Iterator[Images]:
        remaining, at_a_time = iter(records), 1  # until the size of an image is known
        while some := list(itertools.islice(remaining, at_a_time)):
            pixels = of_batch(tf.constant(some)).numpy()
            yield pixels
            at_a_time = as_many_as_fit(pixels.shape[1:], at_most=_TEST_IMAGES)

    return of_all
