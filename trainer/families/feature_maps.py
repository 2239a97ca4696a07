"""The feature maps of a frozen backbone, joined at one resolution: what the family `features` reconstructs."""

import math

import numpy as np
import tensorflow as tf

from trainer.backbones.backbone import Backbone
from trainer.families.autoencoder import Shape

_WINDOW = 3
"""Positions over which the maps are averaged, along each side (Roth et al. 2022, arXiv:2106.08265, section 3.1)."""
_LARGEST_SIDE = 64
"""Positions along the longer side of the joined maps."""


class FeatureMaps(tf.Module):
    """Pixels [B, H, W, C] in [0, 1] -> features [B, h, w, c]: each layer's map, resized to one grid and smoothed.

    The grid is that of the layer whose size is in the middle, at most 64 positions along its longer side.
    """

    def __init__(self, backbone: Backbone, shape: Shape) -> None:
        super().__init__()
        self.backbone = backbone
        shapes = [features.shape.as_list()[1:] for features in backbone(tf.zeros((1, *shape)))]
        sizes, channels = [tuple(size[:2]) for size in shapes], [size[2] for size in shapes]
        height, width = sorted(sizes, key=math.prod)[len(sizes) // 2]
        shrink = max(1.0, max(height, width) / _LARGEST_SIDE)
        self._grid = max(1, round(height / shrink)), max(1, round(width / shrink))
        self.shape: Shape = (*self._grid, sum(channels))

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        joined = tf.concat([self._on_grid(features) for features in self.backbone(pixels)], axis=-1)
        padded = tf.pad(joined, [[0, 0], *[[_WINDOW // 2] * 2] * 2, [0, 0]], "SYMMETRIC")
        return tf.nn.avg_pool2d(padded, _WINDOW, 1, "VALID")

    def _on_grid(self, features: tf.Tensor) -> tf.Tensor:
        """Averages of larger maps, bilinear interpolation of smaller ones."""
        size = features.shape[1:3]
        factors = [whole / part for whole, part in zip(size, self._grid, strict=True)]
        if all(factor >= 1 and factor == int(factor) for factor in factors):
            factors = [int(factor) for factor in factors]
            return tf.nn.avg_pool2d(features, factors, factors, "VALID")
        smaller = np.prod(size) > math.prod(self._grid)
        return tf.image.resize(features, self._grid, tf.image.ResizeMethod.BILINEAR, antialias=bool(smaller))
