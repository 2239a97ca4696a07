"""The preprocessing graph, shared by training, evaluation and serving: encoded bytes -> normalised pixels."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from images.reading import Percentiles
from images.values import PNG_AT, VALUES_START
from runtime.traced_once import traced_once
from schema import features
from schema.features import LEVELS, NORMALISED, OFFSET, SCALE
from trainer.data.region import blacked_out, inside_of_images, lit
from trainer.data.resizing import resized
from trainer.settings.image import ImageSettings

_PNG_START = b"\x89PNG"
_LEVELS_PER_LEVEL = 257.0
"""Levels of 16 bits in one of 8."""
_TO_THE_END = 2**31 - 1
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


def decode_images(encoded: tf.Tensor, settings: ImageSettings, levels: tf.Tensor | None = None) -> tf.Tensor:
    """Encoded images [B] of any size -> pixels [B, H, W, C] float32 in [0, 1].

    `levels` [2] become 0 and 1; they are required if the settings' range is one of percentiles.
    """
    ends = _fixed_levels(settings) if levels is None else levels
    decode = functools.partial(_decode_one, settings=settings, ends=ends)
    spec = tf.TensorSpec(settings.shape, tf.float32)
    if settings.tiles is None:
        pixels = tf.map_fn(decode, encoded, fn_output_signature=spec)
    else:  # without the copy that joins several images
        pixels = tf.cond(
            tf.size(encoded) == 1,
            lambda: decode(encoded[0])[tf.newaxis],
            lambda: tf.map_fn(decode, encoded, fn_output_signature=spec),
        )
    return tf.ensure_shape(pixels, (None, *settings.shape))


def _levels(encoded: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """The levels that become 0 and 1: [2]. tf.Transform computes percentiles from the whole training split."""
    if not isinstance(settings.range, Percentiles):
        return _fixed_levels(settings)

    def sampled(one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        levels, inside = _levels_of_one(one, settings)
        return _sampled(levels, settings), _sampled(inside, settings)

    spec = tf.TensorSpec(settings.shape, tf.float32), tf.TensorSpec((*settings.shape[:2], 1), tf.bool)
    images, own = tf.map_fn(sampled, encoded, fn_output_signature=spec)
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


def _fixed_levels(settings: ImageSettings) -> tf.Tensor:
    """The configured levels that become 0 and 1, or those of the type: [2]."""
    if isinstance(settings.range, Percentiles):
        raise ValueError(f"image.range {settings.range.percentiles} is known only to tf.Transform's graph")
    ends = (0.0, 2.0**settings.depth - 1.0) if settings.range == "full" else settings.range
    return tf.constant(ends, tf.float32)


def _decode_one(encoded: tf.Tensor, settings: ImageSettings, ends: tf.Tensor) -> tf.Tensor:
    image, inside = _levels_of_one(encoded, settings)
    size = tf.constant(settings.shape[:2])
    if settings.has_range:
        pixels = tf.clip_by_value((image - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0)
    else:
        pixels = image / (2.0**settings.depth - 1.0)
    # Before resizing, too, which would otherwise blend what lies outside into the region's edge.
    pixels = blacked_out(pixels, settings) if settings.alpha == "white" else tf.where(inside, pixels, 0.0)
    pixels = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == size), lambda: pixels, lambda: resized(pixels, settings, antialias=True)
    )
    if settings.alpha == "roi":
        pixels = lit(pixels, _sampled(inside, settings))
    return tf.ensure_shape(blacked_out(pixels, settings), settings.shape)


def _sampled(values: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """Of [h, w, C], the nearest to the centre of each of the model's pixels: [H, W, C]."""
    if values.dtype == tf.bool:
        return tf.cast(_sampled(tf.cast(values, tf.uint8), settings), tf.bool)
    return tf.image.resize(values, settings.shape[:2], tf.image.ResizeMethod.NEAREST_NEIGHBOR)


def _levels_of_one(encoded: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """An encoded image -> its levels in the settings' channels, in 8 or 16 bits, or its values: [h, w, C] float32.

    The second tensor is false where the image does not count: [h, w, 1], or [1, 1, 1] if all of it counts.
    """
    is_png = tf.strings.substr(encoded, 0, len(_PNG_START)) == _PNG_START
    eight_bits = functools.partial(_eight_bits, encoded, is_png, settings)
    if settings.depth == 8:
        return eight_bits()

    def sixteen_bits() -> tuple[tf.Tensor, tf.Tensor]:
        return _without_alpha(tf.io.decode_png(encoded, channels=_decoded(settings), dtype=tf.uint16), settings)

    def widened() -> tuple[tf.Tensor, tf.Tensor]:
        levels, inside = eight_bits()
        return levels * _LEVELS_PER_LEVEL, inside

    def levels() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cond(is_png, sixteen_bits, widened)

    if not settings.has_range:
        return levels()
    are_values = tf.strings.substr(encoded, 0, len(VALUES_START)) == VALUES_START
    return tf.cond(are_values, lambda: _values(encoded, settings), levels)


def _values(encoded: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """The 32-bit values of a file as `images.values` describes it, the same in every channel; all of them count."""
    pixels = tf.io.decode_png(tf.strings.substr(encoded, PNG_AT, _TO_THE_END), channels=4)
    values = tf.bitcast(pixels, tf.float32)[:, :, tf.newaxis]
    return tf.tile(values, [1, 1, settings.channels]), tf.ones([1, 1, 1], tf.bool)


def _eight_bits(encoded: tf.Tensor, is_png: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    def other() -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def opaque(colour: tf.Tensor) -> tf.Tensor:
        return tf.pad(colour, [[0, 0], [0, 0], [0, _decoded(settings) - 3]], constant_values=255)

    decoded = tf.cond(
        tf.io.is_jpeg(encoded),
        # The default, a faster approximation, differs by up to 60 of 255 levels.
        lambda: opaque(tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")),
        other
        if _decoded(settings) == 3
        else lambda: tf.cond(is_png, lambda: tf.io.decode_png(encoded, channels=4), lambda: opaque(other())),
    )
    return _without_alpha(decoded, settings)


def _decoded(settings: ImageSettings) -> int:
    """Channels in which PNG files are decoded: with alpha if it matters."""
    return 4 if settings.alpha == "roi" else 3


def _without_alpha(decoded: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """Levels [h, w, 3 or 4] -> as `_levels_of_one`."""
    decoded.set_shape((None, None, _decoded(settings)))
    colour = decoded[..., :3]
    inside = decoded[..., 3:] > 0 if settings.alpha == "roi" else tf.ones([1, 1, 1], tf.bool)
    return _grey(colour) if settings.channels == 1 else tf.cast(colour, tf.float32), inside


def _grey(colour: tf.Tensor) -> tf.Tensor:
    """ITU-R BT.601 luma of [H, W, 3] uint8 or uint16 -> [H, W, 1] float32, rounded to whole levels as Pillow does.

    Decoders are not asked for grey: each has a formula of its own, and libpng's depends on the file's gamma.
    """
    red, green, blue = tf.unstack(tf.cast(colour, tf.int32 if colour.dtype == tf.uint8 else tf.int64), axis=2)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 0x10000
    return tf.cast(luma, tf.float32)[:, :, tf.newaxis]


def _normalisation_constants(pixels: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """(offset [C], scale [C]); for zscore and minmax, tf.Transform computes them from the whole training split."""
    if settings.normalisation == "unit":
        return tf.zeros([settings.channels]), tf.ones([settings.channels])
    per_channel = tf.reshape(pixels, [-1, settings.channels])
    inside = inside_of_images(pixels, settings)
    if inside is not None:
        inside = tf.broadcast_to(inside, tf.shape(pixels)[:3])
        per_channel = tf.boolean_mask(pixels, inside)
    if settings.normalisation == "zscore":
        offset = tft.mean(per_channel, reduce_instance_dims=False)
        scale = tf.sqrt(tft.var(per_channel, reduce_instance_dims=False))
    else:
        offset = tft.min(per_channel, reduce_instance_dims=False)
        scale = tft.max(per_channel, reduce_instance_dims=False) - offset
    # A constant channel has no spread to divide by.
    return offset, tf.where(scale > 1e-6, scale, tf.ones_like(scale))
