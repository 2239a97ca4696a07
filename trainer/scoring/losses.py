"""The error of a reconstruction and the training losses, per image; callers reduce them."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from trainer.settings.model import LossName

LossFn = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
_PIXEL_AXES = (1, 2, 3)
_SSIM_WINDOW_PX = 11


def error_per_image(image: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
    """Mean squared error of each image: two [B, H, W, C] in [0, 1] -> [B]."""
    return tf.reduce_mean(tf.math.squared_difference(image, reconstruction), axis=_PIXEL_AXES)


def error_map(image: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
    """Squared error of each pixel, averaged over channels: two [B, H, W, C] -> [B, H, W]."""
    return tf.reduce_mean(tf.math.squared_difference(image, reconstruction), axis=-1)


def binary_cross_entropy_per_image(image: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
    """Mean binary cross-entropy in nats: targets and probabilities [B, H, W, C] in [0, 1] -> [B]."""
    epsilon = 1e-7
    probability = tf.clip_by_value(reconstruction, epsilon, 1.0 - epsilon)
    cross_entropy = -(image * tf.math.log(probability) + (1.0 - image) * tf.math.log(1.0 - probability))
    return tf.reduce_mean(cross_entropy, axis=_PIXEL_AXES)


def ssim_per_image(image: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
    """Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861): two [B, H, W, C] in [0, 1] -> [B].

    The Gaussian window is 11 pixels wide, or as wide as the image's shorter side if that is smaller.
    """
    window_px = min(_SSIM_WINDOW_PX, image.shape[1], image.shape[2])
    return tf.image.ssim(image, reconstruction, max_val=1.0, filter_size=window_px)


def absolute_error_per_image(image: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
    """Mean absolute error of each image: two [B, H, W, C] in [0, 1] -> [B]."""
    return tf.reduce_mean(tf.abs(image - reconstruction), axis=_PIXEL_AXES)


LOSSES: dict[LossName, LossFn] = {
    "bce": binary_cross_entropy_per_image,
    "mse": error_per_image,
    "mae": absolute_error_per_image,
    "ssim": lambda image, reconstruction: 1.0 - ssim_per_image(image, reconstruction),
}


def weighted_loss(weights: Mapping[LossName, float]) -> LossFn:
    """A weighted sum of LOSSES, given weights by name: targets and reconstructions [B, H, W, C] -> [B]."""

    def loss(image: tf.Tensor, reconstruction: tf.Tensor) -> tf.Tensor:
        return tf.add_n([weight * LOSSES[name](image, reconstruction) for name, weight in weights.items()])

    return loss
