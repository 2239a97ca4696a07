"""Whether a model was made of the images of the `train` split, as Transform sees them; the Trainer is not asked."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from runtime.errors import UserError
from runtime.tfrecords import files_of, spread_records
from schema.features import IMAGE, NORMALISED, OFFSET, SCALE
from schema.signatures import EXAMPLES_SIGNATURE

_TRAIN_IMAGES: Final = 2000
_TEST_IMAGES: Final = 100
_TOLERANCE: Final = 0.1
"""Relative: the mean image is that of a sample, and a GPU's products have 19 bits."""
_NEGLIGIBLE: Final = 1e-5

Images = npt.NDArray[np.float64]


class OtherImagesError(UserError):
    """The model knows other images, or another preprocessing, than this run's; the message says how that was seen."""


def require_same_images(model: str, *, transform_graph: str, train: str, test: str) -> None:
    """Hold the SavedModel `model` against the splits in the folders `train` and `test`; raise OtherImagesError.

    It tells of every test image how far, by its own preprocessing, that is from the mean of the images that it was
    trained on. The same is computed here, by Transform's graph from the training split.
    """
    layer = tft.TFTransformOutput(transform_graph).transform_features_layer()
    mean_image = _pixels(layer, list(spread_records([f"{train}/*"], _TRAIN_IMAGES).as_numpy_iterator())).mean(axis=0)
    records = list(tf.data.TFRecordDataset(files_of([f"{test}/*"])).take(_TEST_IMAGES).as_numpy_iterator())
    expected = float(np.mean((_pixels(layer, records) - mean_image) ** 2))
    answers = tf.saved_model.load(model).signatures[EXAMPLES_SIGNATURE](examples=tf.constant(records))
    told = float(np.mean(answers["deviation"].numpy()))
    if not abs(told - expected) <= _TOLERANCE * expected + _NEGLIGIBLE:
        raise OtherImagesError(
            "the model was trained on other images than those of split 'train', or its preprocessing is not "
            f"Transform's: by its own account test images are {told:.4g} from the mean of the training images (mean "
            f"squared difference), really {expected:.4g}; its errors say nothing, and it is not pushed"
        )


def _pixels(layer: Any, records: Sequence[bytes]) -> Images:
    """[N, H, W, C] in [0, 1]."""
    batches = []
    for start in range(0, len(records), _TEST_IMAGES):
        parsed = tf.io.parse_example(
            records[start : start + _TEST_IMAGES], {IMAGE: tf.io.FixedLenFeature([], tf.string)}
        )
        found = layer({IMAGE: parsed[IMAGE]})
        batches.append((found[NORMALISED] * found[SCALE][0] + found[OFFSET][0]).numpy().astype(np.float64))
    return np.concatenate(batches)
