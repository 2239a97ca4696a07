"""The preprocessing graph, shared by training, evaluation and serving: encoded bytes -> normalised pixels."""

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from schema import features
from schema.features import NORMALISED, OFFSET, SCALE
from trainer.settings.image import ImageSettings


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """tf.Transform's entry point; `custom_config['image']` is an ImageSettings as a mapping."""
    settings = ImageSettings.model_validate(custom_config["image"])
    pixels = decode_images(inputs[features.IMAGE], settings)
    offset, scale = _normalisation_constants(pixels, settings)
    rows = tf.shape(pixels)[0]
    return {
        NORMALISED: (pixels - offset) / scale,
        OFFSET: tf.tile(offset[tf.newaxis], [rows, 1]),
        SCALE: tf.tile(scale[tf.newaxis], [rows, 1]),
    }


def decode_images(encoded: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """Encoded images [B] of any size -> pixels [B, H, W, C] float32 in [0, 1]."""
    pixels = tf.map_fn(
        lambda one: _decode_one(one, settings),
        encoded,
        fn_output_signature=tf.TensorSpec(settings.shape, tf.float32),
    )
    return tf.ensure_shape(pixels, (None, *settings.shape))


def _decode_one(encoded: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    colour = tf.cond(
        tf.io.is_jpeg(encoded),
        # The default, a faster approximation, differs by up to 60 of 255 levels.
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    colour.set_shape((None, None, 3))
    image = _grey(colour) if settings.channels == 1 else tf.cast(colour, tf.float32)
    size = tf.constant(settings.shape[:2])
    pixels = image / 255.0
    pixels = tf.cond(tf.reduce_all(tf.shape(image)[:2] == size), lambda: pixels, lambda: _resize(pixels, settings))
    return tf.ensure_shape(pixels, settings.shape)


def _grey(colour: tf.Tensor) -> tf.Tensor:
    """ITU-R BT.601 luma of [H, W, 3] uint8 -> [H, W, 1] float32, rounded to whole levels as Pillow does.

    Decoders are not asked for grey: each has a formula of its own, and libpng's depends on the file's gamma.
    """
    red, green, blue = tf.unstack(tf.cast(colour, tf.int32), axis=2)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 0x10000
    return tf.cast(luma, tf.float32)[:, :, tf.newaxis]


def _resize(pixels: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    if settings.fit == "pad":
        return tf.image.resize_with_pad(pixels, settings.height_px, settings.width_px, antialias=True)
    return tf.image.resize(pixels, settings.shape[:2], antialias=True)


def _normalisation_constants(pixels: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """(offset [C], scale [C]); for zscore and minmax, tf.Transform computes them from the whole training split."""
    per_channel = tf.reshape(pixels, [-1, settings.channels])
    if settings.normalisation == "zscore":
        offset = tft.mean(per_channel, reduce_instance_dims=False)
        scale = tf.sqrt(tft.var(per_channel, reduce_instance_dims=False))
    elif settings.normalisation == "minmax":
        offset = tft.min(per_channel, reduce_instance_dims=False)
        scale = tft.max(per_channel, reduce_instance_dims=False) - offset
    else:
        return tf.zeros([settings.channels]), tf.ones([settings.channels])
    # A constant channel has no spread to divide by.
    return offset, tf.where(scale > 1e-6, scale, tf.ones_like(scale))
