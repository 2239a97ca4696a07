"""The preprocessing graph, shared by training, evaluation and serving: encoded bytes -> normalised pixels."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from images.reading import Percentiles
from runtime.traced_once import traced_once
from schema import features
from schema.features import LEVELS, NORMALISED, OFFSET, SCALE
from trainer.data.decoding import decode_images, fixed_levels, sampled, sampled_own, values_of_one
from trainer.data.region import inside_of_images
from trainer.settings.image import ImageSettings

_PERCENTILES = 10_000
"""Parts into which the training images' values are divided to find percentiles."""


def preprocessing_fn(inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """tf.Transform's entry point; `custom_config['image']` is an ImageSettings as a mapping."""
    settings = ImageSettings.model_validate(custom_config["image"])
    levels = _levels(inputs[features.IMAGE], settings)
    pixels = tf.ensure_shape(_traced_decoder(settings)(inputs[features.IMAGE], levels), (None, *settings.shape))
    offset, scale = _normalisation_constants(pixels, settings)
    rows = tf.shape(pixels)[0]
    return {
        NORMALISED: (pixels - offset) / scale,
        OFFSET: tf.tile(offset[tf.newaxis], [rows, 1]),
        SCALE: tf.tile(scale[tf.newaxis], [rows, 1]),
        LEVELS: tf.tile(levels[tf.newaxis], [rows, 1]),
    }


@functools.lru_cache(maxsize=4)
def _traced_decoder(settings: ImageSettings) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """`decode_images` as one function: tf.Transform traces the graph around it up to ten times."""
    return traced_once(lambda encoded, levels: decode_images(encoded, settings, levels))


def _levels(encoded: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """The levels that become 0 and 1: [2]. tf.Transform computes percentiles from the whole training split."""
    if not isinstance(settings.range, Percentiles):
        return fixed_levels(settings)

    def sampled_one(one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, inside = values_of_one(one, settings)
        return tf.cast(sampled(values, settings), tf.float32), sampled_own(inside, settings)

    spec = tf.TensorSpec(settings.shape, tf.float32), tf.TensorSpec((*settings.shape[:2], 1), tf.bool)
    images, own = tf.map_fn(sampled_one, encoded, fn_output_signature=spec)
    if settings.alpha == "roi":
        images = tf.boolean_mask(images, own[..., 0])
    elif settings.inside is not None:
        images = tf.boolean_mask(images, settings.inside, axis=1)
    values = tf.reshape(images, [-1])
    boundaries = tft.quantiles(values, _PERCENTILES, epsilon=0.5 / _PERCENTILES)[0]
    low, high = (round(percent * _PERCENTILES / 100) for percent in settings.range.percentiles)
    ends = tf.stack(
        [
            tft.min(values) if low == 0 else boundaries[low - 1],
            tft.max(values) if high == _PERCENTILES else boundaries[high - 1],
        ]
    )
    # Images that are all alike have no range.
    return tf.stack([ends[0], tf.where(ends[1] > ends[0], ends[1], ends[0] + 1.0)])


def _normalisation_constants(pixels: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """(offset [C], scale [C]); for zscore and minmax, tf.Transform computes them from the whole training split."""
    if settings.normalisation == "unit":
        return tf.zeros([settings.channels]), tf.ones([settings.channels])
    inside = inside_of_images(pixels, settings)
    if inside is not None:
        inside = tf.broadcast_to(inside, tf.shape(pixels)[:3])
    if settings.normalisation == "zscore":
        offset, scale = _mean_and_deviation(pixels, inside)
    else:
        per_channel = _per_channel(pixels, inside)
        offset = tft.min(per_channel, reduce_instance_dims=False)
        scale = tft.max(per_channel, reduce_instance_dims=False) - offset
    # A constant channel has no spread to divide by.
    return offset, tf.where(scale > 1e-6, scale, tf.ones_like(scale))


def _per_channel(pixels: tf.Tensor, inside: tf.Tensor | None = None) -> tf.Tensor:
    """The pixels that count, [N, C], of images or one image [..., C]; all if `inside` [...] is None."""
    return tf.reshape(pixels, [-1, pixels.shape[-1]]) if inside is None else tf.boolean_mask(pixels, inside)


def _mean_and_deviation(pixels: tf.Tensor, inside: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """(mean [C], standard deviation [C]) of the pixels `inside`, the same however Beam divides the images into batches.

    `tft.mean` and `tft.var` sum each batch in 32 bits, whose last digits depend on the batch.
    """

    def sums_of_one(image: tuple[tf.Tensor, ...]) -> tf.Tensor:
        values = tf.cast(_per_channel(*image), tf.float64)
        sums = [tf.reduce_sum(power, axis=0) for power in (tf.ones_like(values), values, tf.square(values))]
        return tf.stack(sums)

    spec = tf.TensorSpec([3, pixels.shape[-1]], tf.float64)
    sums = tf.map_fn(sums_of_one, (pixels,) if inside is None else (pixels, inside), fn_output_signature=spec)
    count, total, squares = tf.unstack(tft.sum(sums, reduce_instance_dims=False))
    mean = total / count
    variance = tf.maximum(squares / count - tf.square(mean), 0.0)
    return tf.cast(mean, tf.float32), tf.cast(tf.sqrt(variance), tf.float32)
