"""Random changes to training images: shifts, rotations, flips and brightness."""

import math

import tensorflow as tf

from trainer.settings.trainer import AugmentationSettings


def augment(pixels: tf.Tensor, settings: AugmentationSettings, seed: tf.Tensor) -> tf.Tensor:
    """Change each image in its own way, determined by `seed` [2]: [B, H, W, C] in [0, 1] -> the same shape and range.

    Shift, rotation and flips are one resampling about the image's centre; edge pixels are repeated beyond the edge.
    """
    count = tf.shape(pixels)[0]
    height, width = pixels.shape[1:3]
    chance = tf.random.stateless_uniform([6, count], seed, -1.0, 1.0)
    shift_x, shift_y = (chance[i] * settings.shift_px for i in (0, 1))
    angle = chance[2] * (settings.rotate_degrees * math.pi / 180.0)
    mirror_x = _sign(chance[3], settings.flip_horizontal)
    mirror_y = _sign(chance[4], settings.flip_vertical)

    # Rows of an affine map from an output pixel to its input pixel: a rotation about the centre, then a shift.
    a, b = mirror_x * tf.cos(angle), -mirror_x * tf.sin(angle)
    c, d = mirror_y * tf.sin(angle), mirror_y * tf.cos(angle)
    centre_x, centre_y = (width - 1) / 2.0, (height - 1) / 2.0
    offset_x = centre_x - a * centre_x - b * centre_y + shift_x
    offset_y = centre_y - c * centre_x - d * centre_y + shift_y
    zero = tf.zeros_like(a)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=tf.stack([a, b, offset_x, c, d, offset_y, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    brighter = moved + settings.brightness * chance[5][:, tf.newaxis, tf.newaxis, tf.newaxis]
    return tf.clip_by_value(brighter, 0.0, 1.0)


def _sign(chance: tf.Tensor, allowed: bool) -> tf.Tensor:
    """-1 for half of the images if `allowed`, otherwise 1: [B]."""
    return tf.where(chance < 0.0, -1.0, 1.0) if allowed else tf.ones_like(chance)
