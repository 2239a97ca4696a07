"""The function that is exported: the pixels of one image of any size -> everything the model decides about it."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from images.reading import Reading
from runtime.errors import UsageError
from schema.artifacts import RECORD_FILE
from schema.calibration_record import CalibrationRecord, conformal_rank
from schema.signatures import GROUP

ONE_IMAGE: Final = "one_image"
"""The function of the SavedModel for pixels [1, H, W, C] in [0, 1]."""
INPUT: Final = "image"


class NotExportableError(UsageError):
    """The model cannot be exported; the message names what stands in the way."""


def decision_of(folder: Path) -> Any:
    """The tf.function of levels [1, height, width, C], uint8 or uint16, to the outputs of `reconstruct` by name.

    It resizes as the preprocessing of `folder`, a SavedModel, does. Raises NotExportableError.
    """
    record = _record_of(folder)
    image = record["image"]
    reading = Reading.model_validate({name: image[name] for name in Reading.model_fields if name in image})
    if reading.has_range:
        raise NotExportableError(
            f"{folder}: a model with image.range {image['range']} cannot be exported; train one with image.range: full"
        )
    if reading.alpha == "roi":
        raise NotExportableError(
            f"{folder}: a model with image.alpha: roi needs each image's alpha channel, which the input of an exported "
            "file lacks; serve the model"
        )
    model = tf.saved_model.load(str(folder))
    if not hasattr(model, ONE_IMAGE) and image.get("tiles"):
        raise NotExportableError(
            f"{folder}: an image of {image['width_px']}x{image['height_px']} pixels has too many tiles for one file "
            "without loops; lower image.height_px and image.width_px, or serve the model"
        )
    if not hasattr(model, ONE_IMAGE):
        raise NotExportableError(
            f"{folder}: the version that pushed this model could not prepare it for export; run the pipeline again"
        )
    shape = (image["height_px"], image["width_px"], image["channels"])
    kind = tf.uint8 if reading.depth == 8 else tf.uint16

    def decide(image: tf.Tensor) -> Any:
        pixels = tf.cast(image, tf.float32) / (2.0**reading.depth - 1.0)
        outputs = model.one_image(resized(pixels, shape, keeps_aspect_ratio=record["image"]["fit"] == "pad"))
        return {name: values for name, values in outputs.items() if name != GROUP}  # texts, which few runtimes have

    function = tf.function(
        decide, input_signature=[tf.TensorSpec([1, None, None, shape[2]], kind, INPUT)], autograph=False
    )
    function.model = model  # keeps its variables
    return function


def recalibrate(function: Any, folder: Path, scores: npt.NDArray[np.float32]) -> None:
    """Give `function` the threshold and p-values of these scores of held-out normal images [n], in its precision."""
    calibration = CalibrationRecord.from_json(_record_of(folder)["calibration"])
    ascending = np.sort(scores)
    rank = conformal_rank(len(scores), calibration.false_alarm_rate)
    function.model._threshold.assign(ascending[min(rank, len(scores)) - 1])
    function.model._held_out[0].assign(ascending)


def is_recalibrated(folder: Path) -> bool:
    """Whether there is one threshold, of held-out images, which can be scored in another precision.

    Otherwise it comes from fits without the image that each scored, which the model no longer contains, or there is one
    for each group.
    """
    calibration = CalibrationRecord.from_json(_record_of(folder)["calibration"])
    return calibration.method == "split" and not calibration.groups


def _record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    return record


def resized(pixels: tf.Tensor, shape: tuple[int, int, int], *, keeps_aspect_ratio: bool) -> tf.Tensor:
    """`trainer.data.resizing` with antialiasing as two matrix products: [1, h, w, C] -> [1, H, W, C].

    No runtime outside of TensorFlow has `tf.image.resize`.
    """
    size = tf.shape(pixels)[1:3]
    whole = inner = tf.constant(shape[:2])
    margin = tf.zeros_like(whole)
    if keeps_aspect_ratio:
        fills_height = size[0] * shape[1] >= size[1] * shape[0]
        side, filled = tf.where(fills_height, size[0], size[1]), tf.where(fills_height, whole[0], whole[1])
        margin, inner = (whole * side - size * filled) // (2 * side), tf.maximum(size * filled // side, 1)
    sizes, inners, margins = (tf.cast(px, tf.float32) for px in (size, inner, margin))
    down, across = (_weights(sizes[axis], shape[axis], inners[axis], margins[axis]) for axis in (0, 1))
    rows = tf.reshape(tf.matmul(down, tf.reshape(pixels, [size[0], size[1] * shape[2]])), [shape[0], size[1], shape[2]])
    by_column = tf.reshape(tf.transpose(rows, [1, 0, 2]), [size[1], shape[0] * shape[2]])
    columns = tf.reshape(tf.matmul(across, by_column), [shape[1], shape[0], shape[2]])
    return tf.transpose(columns, [1, 0, 2])[tf.newaxis]


def _weights(size_px: tf.Tensor, whole_px: int, inner_px: tf.Tensor, margin_px: tf.Tensor) -> tf.Tensor:
    """[whole_px, size_px]: the shares of a line's pixels in those of the resized one after the margin; 0 beside it."""
    scale = size_px / inner_px
    places = tf.range(whole_px, dtype=tf.float32) - margin_px
    centres = (places + 0.5) * scale
    distances = tf.abs(tf.range(size_px, dtype=tf.float32) + 0.5 - centres[:, tf.newaxis])
    triangle = tf.maximum(0.0, 1.0 - distances / tf.maximum(scale, 1.0))
    is_inner = tf.cast((places >= 0.0) & (places < inner_px), tf.float32)
    return triangle * (is_inner / tf.maximum(tf.reduce_sum(triangle, axis=1), 1e-6))[:, tf.newaxis]
