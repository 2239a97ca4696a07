"""The region of interest in the graph: what lies outside is black, and is reconstructed without error."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from images.region_of_interest import Inside, Region, cell_of, inside_of
from schema.signatures import FEATURE_ERROR, INSIDE, RECONSTRUCTION
from trainer.settings.image import ImageSettings

Tensors = dict[str, tf.Tensor]


def blacked_out(pixels: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """An image of any size [h, w, C], black outside the region."""
    if settings.roi is None:
        return pixels
    inside = _pixels_inside(settings.roi, tf.shape(pixels)[0], tf.shape(pixels)[1])
    return tf.where(inside[:, :, tf.newaxis], pixels, tf.zeros_like(pixels))


def _pixels_inside(region: Region, height_px: tf.Tensor, width_px: tf.Tensor) -> tf.Tensor:
    """`images.region_of_interest.pixels_inside` in the graph: [h, w] bool."""
    mask = region.mask_pixels
    if mask is not None:
        sides = (tf.cast(side, tf.int64) for side in (height_px, width_px))
        rows, columns = (cell_of(tf.range(side), side, cells) for side, cells in zip(sides, mask.shape, strict=True))
        return tf.gather(tf.gather(tf.constant(mask), rows), columns, axis=1)
    sides_px = (tf.cast(side, tf.float32) for side in (height_px, width_px))
    down, across = ((tf.range(side, dtype=tf.float32) + 0.5) / side for side in sides_px)
    return inside_of(region.corners, down[:, tf.newaxis], across[tf.newaxis, :])


def within(inside: Inside | None, pixels: tf.Tensor) -> tf.Tensor:
    """Images [B, H, W, C], black outside the region [H, W]."""
    return pixels if inside is None else tf.where(inside[..., np.newaxis], pixels, tf.zeros_like(pixels))


def limited(autoencode: Callable[[tf.Tensor], Tensors], inside: Inside | None) -> Callable[[tf.Tensor], Tensors]:
    """The same model, blind outside the region [H, W], where its errors are exactly 0."""
    if inside is None:
        return autoencode

    def of_region(pixels: tf.Tensor) -> Tensors:
        outputs = autoencode(within(inside, pixels))
        outputs[RECONSTRUCTION] = tf.where(inside[..., np.newaxis], outputs[RECONSTRUCTION], pixels)
        if FEATURE_ERROR in outputs:
            outputs[FEATURE_ERROR] *= on_map(inside, outputs[FEATURE_ERROR])
        count = tf.shape(pixels)[0]
        return {**outputs, INSIDE: tf.tile(tf.constant(inside, tf.float32)[tf.newaxis], [count, 1, 1])}

    return of_region


def on_map(inside: Inside, maps: tf.Tensor) -> tf.Tensor:
    """1 for the cells of maps [B, h, w] that contain a pixel inside the region, otherwise 0: [h, w]."""
    share = tf.image.resize(tf.constant(inside, tf.float32)[..., tf.newaxis], maps.shape[1:], method="area")
    return tf.cast(share[..., 0] > 0.0, tf.float32)
