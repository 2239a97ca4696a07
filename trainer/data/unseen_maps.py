"""Error maps of training images by fits without them, as the model's maps of images are."""

import math

import numpy as np
import tensorflow as tf

from runtime.tfrecords import as_many_as_fit
from trainer.data.dataset import ImageSet, PixelConstants
from trainer.data.region import inside_of_images, on_map
from trainer.data.tiles import blended_errors
from trainer.settings.image import ImageSettings


def of_whole_images(
    maps: tf.Variable, learnt: ImageSet, constants: PixelConstants, image: ImageSettings
) -> tf.Variable | None:
    """Maps [n, H, W] of images, 0 outside the region of interest, from those [m, h, w] of what was learnt.

    `maps` may be of only every k-th row learnt. Those of tiles are blended, which needs all tiles of every image; None
    if one is missing, or if each image has a region of its own, which tiles do not tell.
    """
    if learnt.tiles_of is not None and learnt.numbers is not None:
        of_tiles = maps.numpy()
        if image.alpha == "roi" or len(of_tiles) < learnt.count:
            return None
        blended = blended_errors(of_tiles, learnt.tiles_of, learnt.numbers, image)
        if blended is None:
            return None
        maps = tf.Variable(blended, trainable=False, shape=(None, *blended.shape[1:]))
    _limit(maps, learnt, constants, image)
    return maps


def _limit(maps: tf.Variable, learnt: ImageSet, constants: PixelConstants, image: ImageSettings) -> None:
    if image.alpha != "roi":
        if image.inside is not None:
            maps.assign(maps * on_map(tf.constant(image.inside)[tf.newaxis], maps))
        return
    values = maps.numpy()
    rows = np.arange(learnt.count)[:: math.ceil(learnt.count / len(values))]
    at_a_time = as_many_as_fit(learnt.shape)
    for start in range(0, len(rows), at_a_time):
        some = slice(start, start + at_a_time)
        inside = inside_of_images(tf.constant(constants.to_pixels(learnt.rows(rows[some]))), image)
        values[some] *= on_map(inside, maps).numpy()
    maps.assign(values)
