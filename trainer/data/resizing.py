"""Resizes images, and the masks that belong to them, to the model's size."""

from typing import Any

import tensorflow as tf

from trainer.settings.image import ImageSettings


def resized(values: tf.Tensor, image: ImageSettings, **how: Any) -> tf.Tensor:
    """[h, w, C] -> [H, W, C]; `how`: method and antialias of tf.image.resize.

    With `fit: pad` as tf.image.resize_with_pad, which fails if a side would shrink to less than a pixel.
    """
    if image.fit == "stretch":
        return tf.image.resize(values, image.shape[:2], **how)
    size, whole = tf.cast(tf.shape(values)[:2], tf.float32), tf.constant(image.shape[:2], tf.float32)
    scaled = size / tf.reduce_max(size / whole)
    top, left = tf.unstack(tf.cast(tf.maximum(0.0, tf.floor((whole - scaled) / 2.0)), tf.int32))
    inner = tf.image.resize(values, tf.cast(tf.maximum(1.0, tf.floor(scaled)), tf.int32), **how)
    return tf.image.pad_to_bounding_box(inner, top, left, *image.shape[:2])
