"""Tiles in the graph: cuts images into overlapping tiles, computes them in batches, and blends the results."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from schema.signatures import FEATURE_ERROR, KL, LATENT, PIXEL_ERROR, RECONSTRUCTION
from trainer.data.pixel_bytes import to_pixels
from trainer.settings.image import ImageSettings

Tensors = dict[str, tf.Tensor]
Floats = npt.NDArray[np.float32]
Compute = Callable[[tf.Tensor], Tensors]
_BATCH_PIXELS, _BATCH_TILES = 2**20, 256
"""Of the tiles that are computed together, at most."""
_PIXELS_AT_ONCE = 2**22
_AT_ONCE = 16
"""Tiles that are computed together without a loop: as many as the family `features` computes without one."""


def tiled(of_tiles: Compute, image: ImageSettings, *, shows: bool = True) -> Compute:
    """A function of tiles [B, h, w, C] as one of images [B, H, W, C], which computes a batch of tiles at a time.

    Images may also be `pixel_bytes` [B, H, W, C, n], of which each batch of tiles is converted to pixels.
    Of its outputs, reconstruction and feature_error are blended with weights that fall towards a tile's edges. The
    latent of an image is that of its tiles, one after another: [B, tiles Z]; its KL divergence is the sum of theirs.
    `pixel_error` [B, H, W] is added: each pixel's squared error. Without `shows`, it takes the reconstruction's place,
    of which then only a band as high as a tile exists at a time.
    """
    if image.tiles is None:
        return of_tiles
    tiling = _Tiling(image)

    def of_images(pixels: tf.Tensor) -> Tensors:
        def finished(rows: tf.Tensor, number: tf.Tensor, top: tf.Tensor) -> Tensors:
            own = to_pixels(pixels[number, top : top + tf.shape(rows)[0]])
            errors = {PIXEL_ERROR: tf.reduce_mean(tf.math.squared_difference(own, rows), axis=-1)}
            return {**errors, RECONSTRUCTION: rows} if shows else errors

        becomes = (PIXEL_ERROR, RECONSTRUCTION) if shows else (PIXEL_ERROR,)
        return tiling.in_bands(
            of_tiles, pixels, lambda _, places: to_pixels(tf.gather_nd(pixels, places)), finished, becomes
        )

    return of_images


def fits_at_once(image: ImageSettings) -> bool:
    """Whether `tiled_at_once` can take all tiles of an image together: the activations of all are in memory."""
    return image.tiles is None or image.height_px * image.width_px <= _PIXELS_AT_ONCE


def tiled_at_once(of_tiles: Compute, image: ImageSettings) -> Compute:
    """`tiled` for pixels [1, H, W, C], without loops, and with operations that other runtimes have."""
    return of_tiles if image.tiles is None else functools.partial(_Tiling(image).at_once, of_tiles)


def tiled_latents(of_latents: Compute, image: ImageSettings) -> Compute:
    """A function of the latents [B, Z] of tiles as one of the latents [B, tiles Z] of images."""
    if image.tiles is None:
        return of_latents
    tiling = _Tiling(image)

    def of_images(latents: tf.Tensor) -> Tensors:
        by_tile = tf.reshape(latents, [-1, latents.shape[1] // tiling.count])
        return tiling.in_bands(
            of_latents,
            latents,
            lambda numbers, places: tf.gather(by_tile, numbers),
            lambda rows, number, top: {RECONSTRUCTION: rows},
            (RECONSTRUCTION,),
        )

    return of_images


def blended_errors(maps: Floats, tiles_of: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64],
                   image: ImageSettings) -> Floats | None:  # fmt: skip
    """feature_error [n, h, w] of images, as `tiled` blends it from that of tiles [N, ...], in the images' order.

    `tiles_of` [N]: the image of each tile, 0 to n - 1; `numbers` [N]: its number among those of its image, as in `cut`.
    None if a tile is missing.
    """
    tiling = _Tiling(image)
    places = tiles_of * tiling.count + numbers
    if len(maps) != tiling.count * (int(tiles_of.max()) + 1) or len(np.unique(places)) != len(maps):
        return None
    blended: Floats = tiling.blended(tf.constant(maps[np.argsort(places)])).numpy()
    return blended


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
        at_a_time = min(max(1, _BATCH_PIXELS // (height_px * width_px)), _BATCH_TILES)
        self._steps = np.array(list(self._steps_of_rows(at_a_time)), np.int32)
        """[steps, 4]: the first tile, the number of tiles, the row where they begin, the rows finished afterwards."""

    def _steps_of_rows(self, at_a_time: int) -> Iterator[tuple[int, int, int, int]]:
        tops, lefts = self._starts
        for row, (top, below) in enumerate(zip(tops, (*tops[1:], self._shape[0]), strict=True)):
            for first in range(0, len(lefts), at_a_time):
                is_last = first + at_a_time >= len(lefts)
                count = min(at_a_time, len(lefts) - first)
                yield row * len(lefts) + first, count, top, below - top if is_last else 0

    def in_bands(
        self,
        compute: Compute,
        whole: tf.Tensor,
        take: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        finished: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Tensors],
        becomes: Sequence[str],
    ) -> Tensors:
        """The outputs for all images in `whole`, whose tiles are computed row by row.

        `take`: numbers [K] and places [K, h, w, 3] of tiles -> the inputs of `compute`. `finished`: blended rows
        [r, W, C] of an image, its number and the first row's -> what they become, by the names in `becomes`, with as
        many rows each.
        """
        images, steps = tf.shape(whole)[0], len(self._steps)
        spec = take(tf.zeros([0], tf.int32), tf.zeros([0, *self._tile[:2], 3], tf.int32))
        function = tf.function(compute, autograph=False).get_concrete_function(
            tf.TensorSpec([None, *spec.shape[1:]], tf.float32)
        )
        blends = RECONSTRUCTION in function.structured_outputs
        shapes = {name: own.shape[1:] for name, own in function.structured_outputs.items() if name != RECONSTRUCTION}
        if blends:
            shapes |= {name: self._shape[1 : -1 if name == PIXEL_ERROR else None] for name in becomes}
        arrays = {
            name: tf.TensorArray(tf.float32, 1 + images * steps, element_shape=[None, *shape], infer_shape=False)
            for name, shape in shapes.items()
        }
        # So that there is something to concatenate even without any image.
        arrays = {name: own.write(0, tf.zeros([0, *shapes[name]])) for name, own in arrays.items()}
        band = tf.zeros([self._tile[0] if blends else 0, *self._shape[1:]])

        def add_step(number: tf.Tensor, band: tf.Tensor, arrays: dict[str, Any]) -> tuple[Any, ...]:
            image = number // steps
            first, count, top, done = tf.unstack(tf.gather(self._steps, number % steps))
            numbers = image * self.count + first + tf.range(count)
            places = self._places(numbers)
            outputs = dict(function(take(numbers, places)))
            if blends:
                weighted = outputs.pop(RECONSTRUCTION) * self._weights_of(numbers)
                band = tf.tensor_scatter_nd_add(band, places[..., 1:] - [top, 0], weighted)
                outputs.update(finished(band[:done], image, top))
                band = tf.concat([band[done:], tf.zeros([done, *self._shape[1:]])], axis=0)
                band.set_shape([self._tile[0], *self._shape[1:]])
            return number + 1, band, {name: own.write(number + 1, outputs[name]) for name, own in arrays.items()}

        loop = tf.while_loop(
            lambda number, *_: number < images * steps, add_step, [0, band, arrays], parallel_iterations=1
        )
        outputs = {name: own.concat() for name, own in loop[2].items()}
        for name in becomes if blends else ():
            outputs[name] = tf.reshape(outputs[name], [-1, self._shape[0], *outputs[name].shape[1:]])
        return self._joined(outputs)

    def at_once(self, compute: Compute, pixels: tf.Tensor) -> Tensors:
        """The outputs for pixels [1, H, W, C]: cuts by gathering rows and columns, and blends by adding slices."""
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
            by_row = tf.reshape(outputs[RECONSTRUCTION], [len(tops), len(lefts), height_px, width_px * channels])
            columns = _overlaid(tf.transpose(by_row, [1, 0, 2, 3]), tops, self._down)
            by_column = tf.transpose(tf.reshape(columns, [len(lefts), -1, width_px, channels]), [1, 0, 2, 3])
            outputs[RECONSTRUCTION] = _overlaid(by_column, lefts, self._across)[tf.newaxis]
        return self._joined(outputs)

    def _joined(self, outputs: Tensors) -> Tensors:
        """The outputs of images, given those of tiles, row by row, and the images' reconstructions."""
        joined = dict(outputs)
        if LATENT in outputs:
            joined[LATENT] = tf.reshape(outputs[LATENT], [-1, self.count * outputs[LATENT].shape[1]])
        if KL in outputs:
            joined[KL] = tf.reduce_sum(tf.reshape(outputs[KL], [-1, self.count]), axis=1)
        if FEATURE_ERROR in outputs:
            joined[FEATURE_ERROR] = self.blended(outputs[FEATURE_ERROR])
        return joined

    def blended(self, maps: tf.Tensor) -> tf.Tensor:
        """Maps of tiles [B tiles, h, w], enlarged to pixels, blended, and reduced to cells of the same size again."""
        (tops, lefts), (rows, columns) = self._starts, maps.shape[1:]
        cells = zip(self._shape[:2], self._tile[:2], (rows, columns), strict=True)
        size = tuple(max(1, round(side_px * own / tile_px)) for side_px, tile_px, own in cells)
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


def _overlaid(tiles: tf.Tensor, starts: Sequence[int], weights: Floats) -> tf.Tensor:
    """The sum [n, side, d] of tiles [n, T, t, d] times `weights` [T, t], each from one of `starts` [T] on."""
    tile_px = weights.shape[1]
    edges = sorted({*starts, *(start + tile_px for start in starts)})
    sections = [
        tf.add_n(
            [
                tiles[:, number, first - start : end - start] * weights[number, first - start : end - start, np.newaxis]
                for number, start in enumerate(starts)
                if start <= first < start + tile_px
            ]
        )
        for first, end in itertools.pairwise(edges)
    ]
    return tf.concat(sections, axis=1)


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
