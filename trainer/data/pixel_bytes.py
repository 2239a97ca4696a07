"""Pixels as the bytes of a file's levels: a large image takes no more memory until a tile of it enters the network.

Bytes [B, H, W, C, n] uint8 are those of levels of 8 bits (n = 1) or 16 bits (n = 2), the lower byte first, or of pixels
as float32 (n = 4).
"""

import tensorflow as tf

_OF_FLOATS = 4
_WHITE = 2.0**16 - 1.0


def to_pixels(values: tf.Tensor) -> tf.Tensor:
    """Bytes [..., n] as pixels [...] in [0, 1], float32; pixels stay as they are."""
    if values.dtype != tf.uint8:
        return values

    def of_levels() -> tf.Tensor:  # a level of 8 bits is its byte twice in 16
        return (tf.cast(values[..., 0], tf.float32) + 256.0 * tf.cast(values[..., -1], tf.float32)) / _WHITE

    def of_floats() -> tf.Tensor:
        return tf.bitcast(tf.ensure_shape(values, [*values.shape[:-1], _OF_FLOATS]), tf.float32)

    return tf.cond(tf.shape(values)[-1] == _OF_FLOATS, of_floats, of_levels)


def as_bytes(values: tf.Tensor) -> tf.Tensor:
    """The bytes of levels, uint8 or uint16, or of pixels, float32."""
    return values[..., tf.newaxis] if values.dtype == tf.uint8 else tf.bitcast(values, tf.uint8)
