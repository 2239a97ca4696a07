"""Ground-truth masks for evaluation, resized as their images are, with unknown pixels marked."""

import tensorflow as tf

from schema import features
from trainer.data.region import inside_of_images
from trainer.data.resizing import resized
from trainer.settings.image import ImageSettings


def masks_of(examples: tf.Tensor, is_anomaly: tf.Tensor, pixels: tf.Tensor, image: ImageSettings) -> tf.Tensor:
    """Serialized tf.Examples [B] and their pixels [B, H, W, C] -> int8 [B, H, W]: 0 normal, 1 defective, -1 for all
    pixels of an unknown image, and for those outside the region of interest.

    An image that is known to be normal has no defective pixels. A mask is resized as its image is.
    """
    absent = tf.io.FixedLenFeature([], tf.string, default_value="")
    encoded = tf.io.parse_example(examples, {features.MASK: absent})[features.MASK]

    def decode(one: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        mask, known = one
        blank = tf.where(known == 0, tf.zeros((), tf.int8), tf.constant(features.UNKNOWN, tf.int8))
        return tf.cond(
            tf.strings.length(mask) > 0,
            lambda: _fitted(tf.io.decode_image(mask, channels=1, expand_animations=False), image),
            lambda: tf.fill((image.height_px, image.width_px), blank),
        )

    spec = tf.TensorSpec((image.height_px, image.width_px), tf.int8)
    masks = tf.map_fn(decode, (encoded, is_anomaly), fn_output_signature=spec)
    inside = inside_of_images(pixels, image)
    return masks if inside is None else tf.where(inside, masks, tf.constant(features.UNKNOWN, tf.int8))


def _fitted(mask: tf.Tensor, image: ImageSettings) -> tf.Tensor:
    mask.set_shape((None, None, 1))
    sized = resized(mask, image, method=tf.image.ResizeMethod.NEAREST_NEIGHBOR)
    return tf.cast(sized[..., 0] > 0, tf.int8)
