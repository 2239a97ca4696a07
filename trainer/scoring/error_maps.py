"""The error map, which scores aggregate and the exported model shows: the family's own, or the squared error."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from schema.signatures import FEATURE_ERROR, INSIDE, PIXEL_ERROR, RECONSTRUCTION
from trainer.scoring.losses import error_map, error_per_image

Tensors = dict[str, tf.Tensor]


def map_of(pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
    """The autoencoder's error map for pixels [B, H, W, C], given its outputs: [B, h, w], not negative.

    It is `feature_error` if the outputs contain it, and otherwise each pixel's squared error, with h = H and w = W.
    """
    if FEATURE_ERROR in outputs:
        return outputs[FEATURE_ERROR]
    return outputs[PIXEL_ERROR] if PIXEL_ERROR in outputs else error_map(pixels, outputs[RECONSTRUCTION])


def error_of(pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
    """The mean squared error of each image's reconstruction: [B]."""
    if PIXEL_ERROR in outputs:
        return tf.reduce_mean(outputs[PIXEL_ERROR], axis=[1, 2])
    return error_per_image(pixels, outputs[RECONSTRUCTION])


def full_size_map(pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
    """`map_of`, enlarged bilinearly to the image's size: [B, H, W]."""
    whole = enlarged(map_of(pixels, outputs), pixels.shape[1:3])
    return whole * outputs[INSIDE] if INSIDE in outputs else whole


def enlarged(maps: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Maps [B, h, w] interpolated bilinearly to a larger size: [B, *size]."""
    return maps if maps.shape[1:] == size else tf.image.resize(maps[..., tf.newaxis], size)[..., 0]


def side_on_map(side_px: int, pixels: tf.Tensor, maps: tf.Tensor) -> tuple[int, int]:
    """(height, width) on maps [B, h, w] of a square with sides of `side_px` in images [B, H, W, C]; at least 1."""
    height, width = (
        min(max(1, round(side_px * size / size_px)), size)
        for size, size_px in zip(maps.shape[1:3], pixels.shape[1:3], strict=True)
    )
    return height, width


def smoothed(maps: tf.Tensor, window: tuple[int, int]) -> tf.Tensor:
    """Means over all windows (height, width) inside the maps: [B, H, W] -> [B, H', W']."""
    return tf.nn.avg_pool2d(maps[..., tf.newaxis], window, strides=1, padding="VALID")[..., 0]


def centred(values: tf.Tensor, map_size: Sequence[int], size: Sequence[int]) -> tf.Tensor:
    """Values [B, h', w'] of all windows on a map of `map_size`, each at its window's centre, enlarged to [B, *size].

    They are enlarged before they are moved, because the centre of a window of two cells lies between these. The
    outermost are repeated towards the edges.
    """
    sides = zip(size, values.shape[1:], map_size, strict=True)
    values = enlarged(values, [round(side_px * own / whole) for side_px, own, whole in sides])
    for axis, side in zip((1, 2), size, strict=True):
        missing = side - values.shape[axis]
        if missing:
            rows = np.clip(np.arange(side) - missing // 2, 0, values.shape[axis] - 1)
            values = tf.gather(values, rows, axis=axis)
    return values


def mean_of_worst(values: tf.Tensor, percent: float) -> tf.Tensor:
    """Mean of the largest `percent` % (at least one) of each row's values: [B, ...] -> [B]."""
    flat = tf.reshape(values, [-1, int(np.prod(values.shape[1:]))])
    count = max(1, round(flat.shape[1] * percent / 100.0))
    return tf.reduce_mean(tf.math.top_k(flat, count, sorted=False).values, axis=1)
