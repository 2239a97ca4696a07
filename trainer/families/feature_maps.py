"""The feature maps of a frozen backbone, joined at one resolution: what the family `features` reconstructs."""

import math

import numpy as np
import tensorflow as tf

from trainer.backbones.backbone import Backbone
from trainer.backbones.errors import BackboneError
from trainer.families.autoencoder import Shape

_WINDOW = 3
"""Positions over which the maps are averaged, along each side (Roth et al. 2022, arXiv:2106.08265, section 3.1)."""
_LARGEST_SIDE = 64
"""Positions along the longer side of the joined maps."""


class FeatureMaps(tf.Module):
    """Pixels [B, H, W, C] in [0, 1] -> features [B, h, w, c]: each layer's map, resized to one grid and smoothed.

    The grid is that of the layer whose size is in the middle, at most 64 positions along its longer side. Images whose
    sides are no multiples of the largest stride are first mirrored beyond their lower and right edges, and the maps are
    cut afterwards: otherwise the maps of different strides would cover different areas, and not fit together.
    """

    def __init__(self, backbone: Backbone, shape: Shape) -> None:
        super().__init__()
        self.backbone = backbone
        self._beyond, shapes = self._extended(shape)
        sizes, channels = [tuple(size[:2]) for size in shapes], [size[2] for size in shapes]
        height, width = sorted(sizes, key=math.prod)[len(sizes) // 2]
        shrink = max(1.0, max(height, width) / _LARGEST_SIDE)
        self._grid = max(1, round(height / shrink)), max(1, round(width / shrink))
        rows, columns = (
            -(-positions * side_px // (side_px + beyond))
            for positions, side_px, beyond in zip(self._grid, shape[:2], self._beyond, strict=True)
        )
        self.shape: Shape = (rows, columns, sum(channels))

    def _shapes_of(self, shape: Shape) -> list[list[int]]:
        return [features.shape.as_list()[1:] for features in self.backbone(tf.zeros((1, *shape)))]

    def _extended(self, shape: Shape) -> tuple[tuple[int, int], list[list[int]]]:
        """Rows and columns up to the next multiples of the largest stride, and the maps' shapes with them.

        There are none if strides are no powers of two, or if the network is for images of one size.
        """
        shapes = self._shapes_of(shape)
        missing = []
        for side_px, positions in zip(shape[:2], list(zip(*shapes, strict=True))[:2], strict=True):
            stride = 2 ** round(math.log2(side_px / min(positions)))
            short = -side_px % stride
            missing.append(short if math.ceil(side_px / stride) == min(positions) and short <= side_px else 0)
        down, across = missing
        if not any(missing):
            return (0, 0), shapes
        try:
            return (down, across), self._shapes_of((shape[0] + down, shape[1] + across, shape[2]))
        except (BackboneError, ValueError):
            return (0, 0), shapes

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        if any(self._beyond):
            pixels = tf.pad(pixels, [[0, 0], *([0, beyond] for beyond in self._beyond), [0, 0]], "SYMMETRIC")
        maps = [self._on_grid(features) for features in self.backbone(pixels)]
        joined = tf.concat(maps, axis=-1)[:, : self.shape[0], : self.shape[1]]
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
