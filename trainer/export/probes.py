"""Probes: reconstruction errors on noisy images, and on shuffled ones that only a copying model reproduces."""

from collections.abc import Callable

import tensorflow as tf

from runtime.traced_once import traced_once
from schema.signatures import NOISE_ERRORS, PIXEL_VARIANCE, SHUFFLED_ERROR
from trainer.data.region import lit
from trainer.scoring.losses import error_per_image
from trainer.settings.image import ImageSettings

_PROBED_IMAGES, _PROBED_PIXELS, _FEWEST = 1000, 2**25, 32
"""Approximate number of images to probe, and of all their pixels: each needs one reconstruction per probe."""
_BUCKETS = 2**31 - 1

Tensors = dict[str, tf.Tensor]


def share_to_probe(images: int, image: ImageSettings) -> float:
    """The share of so many test images that is probed."""
    return max(_FEWEST, min(_PROBED_IMAGES, _PROBED_PIXELS // (image.height_px * image.width_px))) / max(1, images)


def probe(
    encoded: tf.Tensor,
    pixels: tf.Tensor,
    reconstruct: Callable[[tf.Tensor], tf.Tensor],
    share: tf.Tensor,
    inside: tf.Tensor | None = None,
) -> Tensors:
    """Errors [B] for a share [B] of the images, NaN for the others; `encoded` determines which ones, and their noise.

    For a noisy image (Gaussian, standard deviation 5 to 40 % of the range) it is the error to the clean image; for an
    image with shuffled pixels it is the error to the shuffled image. The variance of the image's pixels is included
    for comparison: it is the error of a model that always returns the image's mean colour. Only pixels `inside`
    [B or 1, H, W] become noisy.
    """
    seeds = tf.strings.to_hash_bucket_fast(encoded, _BUCKETS)
    chosen = tf.where(tf.cast(seeds, tf.float32) < share * _BUCKETS)[:, 0]
    own, seeds = tf.gather(pixels, chosen), tf.gather(seeds, chosen)
    is_inside = None if inside is None else tf.gather(tf.broadcast_to(inside, tf.shape(pixels)[:3]), chosen)[..., None]
    errors = tf.cond(
        tf.size(chosen) > 0,
        lambda: _errors(own, seeds, reconstruct, is_inside),
        lambda: {name: tf.zeros([0]) for name in (SHUFFLED_ERROR, PIXEL_VARIANCE, *NOISE_ERRORS)},
    )
    unknown = tf.fill(tf.shape(encoded), float("nan"))
    return {name: tf.tensor_scatter_nd_update(unknown, chosen[:, None], values) for name, values in errors.items()}


def _errors(
    own: tf.Tensor, seeds: tf.Tensor, reconstruct: Callable[[tf.Tensor], tf.Tensor], inside: tf.Tensor | None
) -> Tensors:
    """The errors [B] of images [B, H, W, C], B > 0."""
    noise, shuffled = _noise_and_shuffled(own, seeds)
    mean_colour = tf.reduce_mean(own, axis=[1, 2], keepdims=True)
    errors = {
        SHUFFLED_ERROR: error_per_image(shuffled, reconstruct(shuffled)),
        PIXEL_VARIANCE: error_per_image(own, mean_colour),
    }
    for name, deviation in NOISE_ERRORS.items():
        noisy = tf.clip_by_value(own + deviation * noise, 0.0, 1.0)
        noisy = noisy if inside is None else lit(noisy, inside)
        errors[name] = error_per_image(own, reconstruct(noisy))
    return errors


@traced_once
def _noise_and_shuffled(images: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Standard normal noise for each of the images [n, H, W, C], and the images with their pixels shuffled."""
    shape = images.shape[1:]
    noise = tf.map_fn(lambda seed: tf.random.stateless_normal(shape, [seed, 0]), seeds, tf.float32)
    return noise, tf.map_fn(_shuffle_pixels, (images, seeds), fn_output_signature=tf.TensorSpec(shape))


def _shuffle_pixels(one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """[H, W, C] with its pixels in random order, the channels of each kept together."""
    image, seed = one
    flat = tf.reshape(image, [-1, image.shape[-1]])
    order = tf.argsort(tf.random.stateless_uniform([flat.shape[0]], [seed, 1]))
    return tf.reshape(tf.gather(flat, order), image.shape)
