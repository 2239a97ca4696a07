"""Anomaly maps of held-out images for TensorBoard, which exist only once there is a pixel threshold."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from images.heat import LEGEND, heat_colours, legend_strip
from runtime.tfrecords import as_many_as_fit

MOST: Final = 8
_LEGEND_PX: Final = 4
_LARGEST_PX: Final = 512


def write_map_summaries(folder: str, model: Any, encoded: tf.Tensor) -> None:
    """Write a picture of at most 8 of the encoded images [B] over their anomaly maps, in the colours of all others.

    `model`: a ServedModel. Of large images fewer are shown, reduced to 512 pixels.
    """
    shown = encoded[: as_many_as_fit(model.trained.mean_image.shape, at_most=MOST)]
    pixels = model.trained.decode_pixels(shown)
    maps = model.anomaly_map(pixels, model.trained.autoencode(pixels))
    writer = tf.summary.create_file_writer(folder)
    with writer.as_default(step=0):
        picture = _picture(_reduced(pixels), _reduced(maps[..., tf.newaxis])[..., 0])
        tf.summary.image("held-out images over anomaly maps", picture[np.newaxis], description=LEGEND)
    writer.close()


def _reduced(images: tf.Tensor) -> npt.NDArray[np.float32]:
    """[B, H, W, C] with at most 512 pixels along the longer side."""
    longer = max(images.shape[1:3])
    if longer > _LARGEST_PX:
        size = [max(1, side * _LARGEST_PX // longer) for side in images.shape[1:3]]
        images = tf.image.resize(images, size, antialias=True)
    reduced: npt.NDArray[np.float32] = images.numpy()
    return reduced


def _picture(pixels: npt.NDArray[np.float32], maps: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Images [B, H, W, C] in [0, 1] over their maps [B, H, W] and the legend, side by side: [height, B W, 3]."""
    levels = np.clip(np.round(255.0 * pixels), 0, 255).astype(np.uint8)
    originals = np.concatenate([np.broadcast_to(one, (*one.shape[:2], 3)) for one in levels], axis=1)
    heat = np.concatenate([heat_colours(one) for one in maps], axis=1)
    return np.concatenate([originals, heat, legend_strip(heat.shape[1], _LEGEND_PX)])
