"""Probes: reconstruction errors on noisy images, and on shuffled ones that only a copying model reproduces."""

from collections.abc import Callable

import tensorflow as tf

from schema.signatures import NOISE_ERRORS, PIXEL_VARIANCE, SHUFFLED_ERROR
from trainer.data.region import lit
from trainer.scoring.losses import error_per_image

PROBED_IMAGES = 1000
"""Approximate number of images to probe: each needs one reconstruction per probe."""
_BUCKETS = 2**31 - 1


def probe(
    encoded: tf.Tensor,
    pixels: tf.Tensor,
    reconstruct: Callable[[tf.Tensor], tf.Tensor],
    share: float,
    inside: tf.Tensor | None = None,
) -> dict[str, tf.Tensor]:
    """Errors [B] for a `share` of the images, NaN for the others; `encoded` determines which ones, and their noise.

    For a noisy image (Gaussian, standard deviation 5 to 40 % of the range) it is the error to the clean image; for an
    image with shuffled pixels it is the error to the shuffled image. The variance of the image's pixels is included
    for comparison: it is the error of a model that always returns the image's mean colour. Only pixels `inside`
    [B or 1, H, W] become noisy.
    """
    seeds = tf.strings.to_hash_bucket_fast(encoded, _BUCKETS)
    chosen = tf.where(tf.cast(seeds, tf.float32) < share * _BUCKETS)[:, 0]
    own, seeds = tf.gather(pixels, chosen), tf.gather(seeds, chosen)
    noise = tf.map_fn(lambda seed: tf.random.stateless_normal(pixels.shape[1:], [seed, 0]), seeds, tf.float32)
    shuffled = tf.map_fn(_shuffle_pixels, (own, seeds), fn_output_signature=tf.TensorSpec(pixels.shape[1:]))
    is_inside = None if inside is None else tf.gather(tf.broadcast_to(inside, tf.shape(pixels)[:3]), chosen)[..., None]
    mean_colour = tf.reduce_mean(own, axis=[1, 2], keepdims=True)
    errors = {
        SHUFFLED_ERROR: error_per_image(shuffled, _of_any_number(reconstruct, shuffled)),
        PIXEL_VARIANCE: error_per_image(own, mean_colour),
    }
    for name, deviation in NOISE_ERRORS.items():
        noisy = tf.clip_by_value(own + deviation * noise, 0.0, 1.0)
        noisy = noisy if is_inside is None else lit(noisy, is_inside)
        errors[name] = error_per_image(own, _of_any_number(reconstruct, noisy))
    unknown = tf.fill(tf.shape(encoded), float("nan"))
    return {name: tf.tensor_scatter_nd_update(unknown, chosen[:, None], values) for name, values in errors.items()}


def _of_any_number(reconstruct: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """Reconstructions of [B, H, W, C]; B may be 0, for which TensorFlow's convolutions fail on a CPU."""
    blank = tf.zeros([1, *images.shape[1:]])
    return reconstruct(tf.concat([blank, images], axis=0))[1:]


def _shuffle_pixels(one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """[H, W, C] with its pixels in random order, the channels of each kept together."""
    image, seed = one
    flat = tf.reshape(image, [-1, image.shape[-1]])
    order = tf.argsort(tf.random.stateless_uniform([flat.shape[0]], [seed, 1]))
    return tf.reshape(tf.gather(flat, order), image.shape)
