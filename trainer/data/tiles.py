"""Tiles in the graph: cuts images into overlapping tiles, computes them in batches, and blends the results."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from schema.signatures import FEATURE_ERROR, KL, LATENT, RECONSTRUCTION
from trainer.settings.image import ImageSettings

Tensors = dict[str, tf.Tensor]
Floats = npt.NDArray[np.float32]
Compute = Callable[[tf.Tensor], Tensors]
_BATCH_PIXELS, _BATCH_TILES = 2**20, 256
"""Of the tiles that are computed together, at most."""
_PIXELS_AT_ONCE = 2**22
_AT_ONCE = 16
"""Tiles that are computed together without a loop: as many as the family `features` computes without one."""


def tiled(of_tiles: Compute, image: ImageSettings) -> Compute:
    """A function of tiles [B, h, w, C] as one of images [B, H, W, C], which computes a batch of tiles at a time.

    Of its outputs, reconstruction and feature_error are blended with weights that fall towards a tile's edges. The
    latent of an image is that of its tiles, one after another: [B, tiles Z]; its KL divergence is the sum of theirs.
    """
    if image.tiles is None:
        return of_tiles
    tiling = _Tiling(image)
    return lambda pixels: tiling.in_batches(of_tiles, pixels, lambda numbers, places: tf.gather_nd(pixels, places))


def fits_at_once(image: ImageSettings) -> bool:
    """Whether `tiled_at_once` can take all tiles of an image together: its matrices grow with the image's sides."""
    return image.tiles is None or image.height_px * image.width_px <= _PIXELS_AT_ONCE


def tiled_at_once(of_tiles: Compute, image: ImageSettings) -> Compute:
    """The same for pixels [1, H, W, C], without loops, and with operations that other runtimes have."""
    return of_tiles if image.tiles is None else functools.partial(_Tiling(image).at_once, of_tiles)


def tiled_latents(of_latents: Compute, image: ImageSettings) -> Compute:
    """A function of the latents [B, Z] of tiles as one of the latents [B, tiles Z] of images."""
    if image.tiles is None:
        return of_latents
    tiling = _Tiling(image)

    def of_images(latents: tf.Tensor) -> Tensors:
        by_tile = tf.reshape(latents, [-1, latents.shape[1] // tiling.count])
        return tiling.in_batches(of_latents, latents, lambda numbers, places: tf.gather(by_tile, numbers))

    return of_images


def cut(pixels: Floats, image: ImageSettings, number: int) -> Floats:
    """The tile [h, w, C] with this number, counted row by row, of an image [H, W, C]."""
    (tops, lefts), (height_px, width_px, _) = image.tile_starts, image.network_shape
    top, left = tops[number // len(lefts)], lefts[number % len(lefts)]
    return pixels[top : top + height_px, left : left + width_px]


class _Tiling:
    """Where the tiles of an image lie, and the weights [rows, h] and [columns, w] with which they are blended."""

    def __init__(self, image: ImageSettings) -> None:
        self._shape, self._tile = image.shape, image.network_shape
        self._starts = image.tile_starts
        self.count = image.tile_count
        (tops, lefts), (height_px, width_px, _) = self._starts, self._tile
        self._corners = np.array([(top, left) for top in tops for left in lefts], np.int32)
        self._down = _weights(tops, height_px, image.height_px)
        self._across = _weights(lefts, width_px, image.width_px)
        self._at_a_time = min(max(1, _BATCH_PIXELS // (height_px * width_px)), _BATCH_TILES)

    def in_batches(
        self, compute: Compute, whole: tf.Tensor, take: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    ) -> Tensors:
        """`take`: numbers [K] and places [K, h, w, 3] of tiles of all images in `whole` -> the inputs of `compute`."""
        images = tf.shape(whole)[0]
        tiles = images * self.count
        spec = take(tf.zeros([0], tf.int32), tf.zeros([0, *self._tile[:2], 3], tf.int32))
        function = tf.function(compute, autograph=False).get_concrete_function(
            tf.TensorSpec([None, *spec.shape[1:]], tf.float32)
        )
        empty = {
            name: tf.zeros([images, *self._shape] if name == RECONSTRUCTION else [tiles, *output.shape[1:]])
            for name, output in function.structured_outputs.items()
        }

        def add_batch(first: tf.Tensor, done: Tensors) -> tuple[tf.Tensor, Tensors]:
            numbers = tf.range(first, tf.minimum(first + self._at_a_time, tiles))
            places = self._places(numbers)
            outputs = function(take(numbers, places))
            added = {name: tf.tensor_scatter_nd_update(done[name], numbers[:, tf.newaxis], outputs[name])
                     for name in done if name != RECONSTRUCTION}  # fmt: skip
            if RECONSTRUCTION in done:
                weighted = outputs[RECONSTRUCTION] * self._weights_of(numbers)
                added[RECONSTRUCTION] = tf.tensor_scatter_nd_add(done[RECONSTRUCTION], places, weighted)
            return first + self._at_a_time, added

        done = tf.while_loop(lambda first, _: first < tiles, add_batch, [0, empty], parallel_iterations=1)[1]
        return self._joined(done)

    def at_once(self, compute: Compute, pixels: tf.Tensor) -> Tensors:
        """The outputs for pixels [1, H, W, C]: cuts by gathering rows and columns, and blends by matrix products."""
        (tops, lefts), (height_px, width_px, channels) = self._starts, self._tile
        rows, columns = (np.add.outer(own, np.arange(side)).ravel()
                         for own, side in ((tops, height_px), (lefts, width_px)))  # fmt: skip
        cells = tf.reshape(
            tf.gather(tf.gather(pixels[0], rows), columns, axis=1),
            [len(tops), height_px, len(lefts), width_px, channels],
        )
        tiles = tf.reshape(tf.transpose(cells, [0, 2, 1, 3, 4]), [self.count, *self._tile])
        parts = [compute(tiles[first : first + _AT_ONCE]) for first in range(0, self.count, _AT_ONCE)]
        outputs = {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}
        if RECONSTRUCTION in outputs:
            by_channel = tf.reshape(tf.transpose(outputs[RECONSTRUCTION], [3, 0, 1, 2]), [-1, height_px, width_px])
            blended = self._blended(by_channel, self._shape[:2])
            outputs[RECONSTRUCTION] = tf.transpose(blended, [1, 2, 0])[tf.newaxis]
        return self._joined(outputs)

    def _joined(self, outputs: Tensors) -> Tensors:
        """The outputs of images, given those of tiles, row by row, and the images' reconstructions."""
        joined = dict(outputs)
        if LATENT in outputs:
            joined[LATENT] = tf.reshape(outputs[LATENT], [-1, self.count * outputs[LATENT].shape[1]])
        if KL in outputs:
            joined[KL] = tf.reduce_sum(tf.reshape(outputs[KL], [-1, self.count]), axis=1)
        if FEATURE_ERROR in outputs:
            cells = zip(self._shape[:2], self._tile[:2], outputs[FEATURE_ERROR].shape[1:], strict=True)
            grid = tuple(max(1, round(side_px * own / tile_px)) for side_px, tile_px, own in cells)
            joined[FEATURE_ERROR] = self._blended(outputs[FEATURE_ERROR], grid)
        return joined

    def _blended(self, maps: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
        """Maps of tiles [B tiles, h, w], enlarged to the tiles' pixels, blended and reduced to `size`: [B, *size]."""
        (tops, lefts), (rows, columns) = self._starts, maps.shape[1:]
        tiles = tf.reshape(maps, [-1, len(tops), len(lefts), rows, columns])
        mosaic = tf.reshape(tf.transpose(tiles, [0, 1, 3, 2, 4]), [-1, len(tops) * rows, len(lefts) * columns])
        down = _blending(tops, self._down, self._shape[0], rows, size[0])
        across = _blending(lefts, self._across, self._shape[1], columns, size[1])
        return tf.matmul(tf.matmul(down, mosaic), across, transpose_b=True)

    def _places(self, numbers: tf.Tensor) -> tf.Tensor:
        """The image, row and column of each pixel of the tiles with these numbers: [K, h, w, 3]."""
        corners = tf.gather(self._corners, numbers % self.count)
        size = [tf.size(numbers), *self._tile[:2]]
        rows, columns = (tf.range(side_px) for side_px in self._tile[:2])
        of_axes = (
            (numbers // self.count)[:, tf.newaxis, tf.newaxis],
            corners[:, 0, tf.newaxis, tf.newaxis] + rows[:, tf.newaxis],
            corners[:, 1, tf.newaxis, tf.newaxis] + columns,
        )
        return tf.stack([tf.broadcast_to(axis, size) for axis in of_axes], axis=-1)

    def _weights_of(self, numbers: tf.Tensor) -> tf.Tensor:
        """[K, h, w, 1]"""
        rows, columns = (numbers % self.count) // len(self._starts[1]), numbers % len(self._starts[1])
        down, across = tf.gather(self._down, rows), tf.gather(self._across, columns)
        return (down[:, :, tf.newaxis] * across[:, tf.newaxis, :])[..., tf.newaxis]


def _weights(starts: Sequence[int], tile_px: int, side_px: int) -> Floats:
    """The weights of each tile's pixels along a side, falling towards the edges; over all tiles they sum to 1."""
    rising = np.arange(1, tile_px + 1)
    window = np.minimum(rising, rising[::-1])
    total = np.zeros(side_px)
    for start in starts:
        total[start : start + tile_px] += window
    weights: Floats = np.stack([window / total[start : start + tile_px] for start in starts]).astype(np.float32)
    return weights


def _blending(starts: Sequence[int], weights: Floats, side_px: int, cells: int, size: int) -> Floats:
    """[size, tiles cells]: the share of each tile's cells along a side in those of the whole.

    Cells are enlarged to a tile's pixels bilinearly, blended by `weights` [tiles, pixels], and averaged again.
    """
    tile_px = weights.shape[1]
    centres = np.clip((np.arange(tile_px) + 0.5) * cells / tile_px - 0.5, 0, cells - 1)
    enlarge = np.maximum(0.0, 1.0 - np.abs(centres[:, np.newaxis] - np.arange(cells)))
    edges = np.arange(size + 1) * side_px / size
    parts = []
    for start, own in zip(starts, weights, strict=True):
        pixels = np.arange(start, start + tile_px)
        covered = np.minimum(edges[1:, np.newaxis], pixels + 1) - np.maximum(edges[:-1, np.newaxis], pixels)
        parts.append((np.maximum(covered, 0.0) * size / side_px * own) @ enlarge)
    return np.concatenate(parts, axis=1).astype(np.float32)
