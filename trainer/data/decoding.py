"""Decodes image files in the graph: encoded bytes -> pixels, or the bytes that large images are kept as."""

import functools

import tensorflow as tf

from images.reading import Percentiles
from images.values import PNG_AT, VALUES_START
from trainer.data.pixel_bytes import as_bytes
from trainer.data.region import blacked_out, lit
from trainer.data.resizing import resized
from trainer.settings.image import ImageSettings

_PNG_START = b"\x89PNG"
_PER_LEVEL = 257
"""Levels of 16 bits in one of 8."""
_TO_THE_END = 2**31 - 1


def decode_images(encoded: tf.Tensor, settings: ImageSettings, levels: tf.Tensor | None = None) -> tf.Tensor:
    """Encoded images [B] of any size -> pixels [B, H, W, C] float32 in [0, 1].

    `levels` [2] become 0 and 1; they are required if the settings' range is one of percentiles.
    """
    ends = fixed_levels(settings) if levels is None else levels

    def decode(one: tf.Tensor) -> tf.Tensor:
        return _fitted(*values_of_one(one, settings), settings, ends)

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


def decode_to_bytes(encoded: tf.Tensor, settings: ImageSettings, levels: tf.Tensor | None = None) -> tf.Tensor:
    """As `decode_images`, as `pixel_bytes` [B, H, W, C, n].

    Levels stay what they are if there is one image, which has the model's size already, and no range.
    """

    def decode_alone() -> tf.Tensor:
        values, inside = values_of_one(encoded[0], settings)
        return tf.cond(
            _has_size(values, settings),
            lambda: as_bytes(blacked_out(values, settings))[tf.newaxis],
            lambda: as_bytes(_fitted(values, inside, settings, fixed_levels(settings)))[tf.newaxis],
        )

    def decode_any() -> tf.Tensor:
        return as_bytes(decode_images(encoded, settings, levels))

    keeps_levels = not settings.has_range and settings.alpha == "white"
    decoded = tf.cond(tf.size(encoded) == 1, decode_alone, decode_any) if keeps_levels else decode_any()
    return tf.ensure_shape(decoded, (None, *settings.shape, None))


def fixed_levels(settings: ImageSettings) -> tf.Tensor:
    """The configured levels that become 0 and 1, or those of the type: [2]."""
    if isinstance(settings.range, Percentiles):
        raise ValueError(f"image.range {settings.range.percentiles} is known only to tf.Transform's graph")
    ends = (0.0, 2.0**settings.depth - 1.0) if settings.range == "full" else settings.range
    return tf.constant(ends, tf.float32)


def sampled(values: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """Of [h, w, C], the nearest to the centre of each of the model's pixels: [H, W, C]."""
    return tf.image.resize(values, settings.shape[:2], tf.image.ResizeMethod.NEAREST_NEIGHBOR)


def sampled_own(inside: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """`images.region_of_interest.sampled_own` in the graph: [h, w, 1] bool -> [H, W, 1]."""

    def containing() -> tf.Tensor:
        own_px, whole_px = tf.shape(inside, tf.int64)[:2], tf.constant(settings.shape[:2], tf.int64)
        cells = tf.where(inside[..., 0]) * whole_px // own_px
        parts = tf.scatter_nd(cells, tf.ones(tf.shape(cells)[:1], tf.int32), whole_px)
        return parts[..., tf.newaxis] > 0

    found = sampled(tf.cast(inside, tf.uint8), settings) > 0
    return tf.cond(tf.reduce_any(found), lambda: found, containing)


def values_of_one(encoded: tf.Tensor, settings: ImageSettings) -> tuple[tf.Tensor, tf.Tensor]:
    """An encoded image -> its levels in the settings' channels, in 8 or 16 bits: [h, w, C] uint8 or uint16.

    With a range, they are float32, or the file's values. The second tensor is false where the image does not count:
    [h, w, 1], or [1, 1, 1] if all of it counts.
    """
    is_png = tf.strings.substr(encoded, 0, len(_PNG_START)) == _PNG_START
    eight_bits = functools.partial(_eight_bits, encoded, is_png, settings)
    if settings.depth == 8:
        return eight_bits()

    def sixteen_bits() -> tuple[tf.Tensor, tf.Tensor]:
        return _without_alpha(tf.io.decode_png(encoded, channels=_decoded(settings), dtype=tf.uint16), settings)

    def widened() -> tuple[tf.Tensor, tf.Tensor]:
        levels, inside = eight_bits()
        return tf.cast(levels, tf.uint16) * _PER_LEVEL, inside

    def levels() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.cond(is_png, sixteen_bits, widened)

    if not settings.has_range:
        return levels()

    def as_values() -> tuple[tf.Tensor, tf.Tensor]:
        found, inside = levels()
        return tf.cast(found, tf.float32), inside

    are_values = tf.strings.substr(encoded, 0, len(VALUES_START)) == VALUES_START
    return tf.cond(are_values, lambda: _values(encoded, settings), as_values)


def _fitted(values: tf.Tensor, inside: tf.Tensor, settings: ImageSettings, ends: tf.Tensor) -> tf.Tensor:
    """What `values_of_one` gives, as pixels of the model's size."""
    values = tf.cast(values, tf.float32)
    if settings.has_range:
        pixels = tf.clip_by_value((values - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0)
    else:
        pixels = values / (2.0**settings.depth - 1.0)
    # Before resizing, too, which would otherwise blend what lies outside into the region's edge.
    pixels = blacked_out(pixels, settings) if settings.alpha == "white" else tf.where(inside, pixels, 0.0)
    pixels = tf.cond(_has_size(values, settings), lambda: pixels, lambda: resized(pixels, settings, antialias=True))
    if settings.alpha == "roi":
        pixels = lit(pixels, sampled_own(inside, settings))
    return tf.ensure_shape(blacked_out(pixels, settings), settings.shape)


def _has_size(values: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    return tf.reduce_all(tf.shape(values)[:2] == tf.constant(settings.shape[:2]))


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
    """Levels [h, w, 3 or 4] -> as `values_of_one`."""
    decoded.set_shape((None, None, _decoded(settings)))
    colour = decoded[..., :3]
    inside = decoded[..., 3:] > 0 if settings.alpha == "roi" else tf.ones([1, 1, 1], tf.bool)
    if settings.channels == 3:
        return colour, inside
    if settings.tiles is None:
        return _grey(colour), inside
    # Of a large image row by row: on the way, values have 32 or 64 bits.
    row = tf.TensorSpec((None, 1), colour.dtype)
    return tf.map_fn(_grey, colour, fn_output_signature=row), inside


def _grey(colour: tf.Tensor) -> tf.Tensor:
    """ITU-R BT.601 luma of [..., 3] uint8 or uint16 -> [..., 1], rounded to whole levels as Pillow does.

    Decoders are not asked for grey: each has a formula of its own, and libpng's depends on the file's gamma.
    """
    red, green, blue = tf.unstack(tf.cast(colour, tf.int32 if colour.dtype == tf.uint8 else tf.int64), axis=-1)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 0x10000
    return tf.cast(luma, colour.dtype)[..., tf.newaxis]
