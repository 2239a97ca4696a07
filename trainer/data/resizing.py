"""Resizes images, and the masks that belong to them, to the model's size."""

from typing import Any

import tensorflow as tf

from trainer.settings.image import ImageSettings


def resized(values: tf.Tensor, image: ImageSettings, **how: Any) -> tf.Tensor:
    """[h, w, C] -> [H, W, C]; `how`: method and antialias of tf.image.resize.

    `fit: pad` is tf.image.resize_with_pad in integers: in single precision, 80x80 pixels would not fill 48x48 once
    TensorFlow has replaced a division in a graph, and `images.regions.Placement` would be wrong.
    """
    if image.fit == "stretch":
        return tf.image.resize(values, image.shape[:2], **how)
    size_px, whole_px = tf.shape(values, tf.int64)[:2], tf.constant(image.shape[:2], tf.int64)
    fills = tf.argmax(size_px * whole_px[::-1])
    side_px, filled_px = size_px[fills], whole_px[fills]
    top, left = tf.unstack(tf.cast((whole_px * side_px - size_px * filled_px) // (2 * side_px), tf.int32))
    inner_px = tf.cast(tf.maximum(size_px * filled_px // side_px, 1), tf.int32)
    return tf.image.pad_to_bounding_box(tf.image.resize(values, inner_px, **how), top, left, *image.shape[:2])
