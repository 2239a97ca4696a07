"""Feature maps of a frozen backbone, joined at one stride, and what is made of maps of distances."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]

from bench.detection.tasks import Floats

BACKBONE = "efficientnet-lite0"
_SMOOTHING_PX = 4.0
"""Standard deviation of the Gaussian that both papers smooth their maps with."""

Features = Callable[[Floats], Floats]
"""Pixels [B, H, W, C] in [0, 1] -> features [B, h, w, D]."""


def joined_maps(*, local_mean: bool = False) -> Features:
    """The backbone's maps at strides 4, 8 and 16, joined at stride 8: the first averaged, the last upsampled.

    `local_mean` averages each position with its neighbours first, 3x3 of the map's own positions.
    """
    import tensorflow as tf

    from trainer.backbones.loading import load_backbone

    backbone = load_backbone(BACKBONE)

    @tf.function(autograph=False, reduce_retracing=True)
    def join(pixels: tf.Tensor) -> tf.Tensor:
        maps = backbone(pixels)
        size = tf.shape(maps[1])[1:3]
        if local_mean:
            maps = [tf.nn.avg_pool2d(one, 3, 1, "SAME") for one in maps]
        sized = [tf.nn.avg_pool2d(maps[0], 2, 2, "SAME"), maps[1], tf.image.resize(maps[2], size)]
        return tf.concat(sized, axis=-1)

    return lambda pixels: join(tf.constant(pixels)).numpy()


def enlarged(maps: Floats, shape: tuple[int, ...]) -> Floats:
    """Maps [B, h, w] -> [B, H, W], upsampled bilinearly and smoothed."""
    import tensorflow as tf

    sized: Any = tf.image.resize(maps[..., np.newaxis], shape)[..., 0].numpy()
    return ndimage.gaussian_filter(sized, (0, _SMOOTHING_PX, _SMOOTHING_PX))
