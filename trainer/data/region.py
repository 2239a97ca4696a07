"""The region of interest in the graph: what lies outside is black, and is reconstructed without error.

It is the same for all images (`image.roi`), or each image's own (`image.alpha: roi`). In the latter case exactly the
pixels outside are black, because the decoder leaves no other pixel black.
"""

from collections.abc import Callable

import tensorflow as tf

from images.region import Region
from images.region_of_interest import FAINTEST, cell_of, inside_of
from schema.signatures import FEATURE_ERROR, INSIDE, PIXEL_ERROR, RECONSTRUCTION
from trainer.settings.image import ImageSettings

Tensors = dict[str, tf.Tensor]


def blacked_out(pixels: tf.Tensor, settings: ImageSettings) -> tf.Tensor:
    """An image of any size [h, w, C], black outside the region of all images."""
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


def lit(pixels: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
    """Pixels [..., H, W, C], exactly black where they are not `inside` [..., H, W, 1], and nowhere else."""
    return tf.where(inside, tf.maximum(pixels, FAINTEST), 0.0)


def inside_of_images(pixels: tf.Tensor, image: ImageSettings) -> tf.Tensor | None:
    """Which pixels of images [B, H, W, C] count: bool [B, H, W], or [1, H, W] for all alike; None if all do.

    Images may also be `pixel_bytes` [B, H, W, C, n].
    """
    if image.alpha == "roi":
        if pixels.dtype == tf.uint8:
            return tf.reduce_any(pixels > 0, axis=[-2, -1])
        return tf.reduce_any(pixels > FAINTEST / 2, axis=-1)
    return None if image.inside is None else tf.constant(image.inside)[tf.newaxis]


def within(pixels: tf.Tensor, image: ImageSettings) -> tf.Tensor:
    """Images [B, H, W, C], black outside the region."""
    inside = inside_of_images(pixels, image)
    return pixels if inside is None else tf.where(inside[..., tf.newaxis], pixels, tf.zeros_like(pixels))


def limited(autoencode: Callable[[tf.Tensor], Tensors], image: ImageSettings) -> Callable[[tf.Tensor], Tensors]:
    """The same model, blind outside the region, where its errors are exactly 0.

    Its errors of an image of which no pixel counts are not numbers: nothing is known about it.
    """
    if image.inside is None and image.alpha != "roi":
        return autoencode

    def of_region(pixels: tf.Tensor) -> Tensors:
        inside = inside_of_images(pixels, image)
        assert inside is not None
        # Bytes are always those of a file, which the decoder has made black.
        is_black = pixels.dtype == tf.uint8
        black = pixels if is_black else tf.where(inside[..., tf.newaxis], pixels, tf.zeros_like(pixels))
        outputs = autoencode(black)
        if RECONSTRUCTION in outputs:
            outputs[RECONSTRUCTION] = tf.where(inside[..., tf.newaxis], outputs[RECONSTRUCTION], black)
        maps = [name for name in (FEATURE_ERROR, PIXEL_ERROR) if name in outputs]
        for name in maps:
            outputs[name] *= on_map(inside, outputs[name])
        if image.alpha == "roi":
            unknown = tf.where(tf.reduce_any(inside, axis=[1, 2]), 0.0, float("nan"))[:, tf.newaxis, tf.newaxis]
            for name in maps:
                outputs[name] += unknown
            if RECONSTRUCTION in outputs:
                outputs[RECONSTRUCTION] += unknown[..., tf.newaxis]
        return {**outputs, INSIDE: tf.broadcast_to(tf.cast(inside, tf.float32), tf.shape(pixels)[:3])}

    return of_region


def on_map(inside: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """1 for the cells of maps [B, h, w] that contain a pixel inside the region, otherwise 0: [B or 1, h, w]."""
    if inside.shape[1:] == maps.shape[1:]:
        return tf.cast(inside, tf.float32)
    share = tf.image.resize(tf.cast(inside, tf.float32)[..., tf.newaxis], maps.shape[1:], method="area")
    return tf.cast(share[..., 0] > 0.0, tf.float32)
