"""TFRecords of encoded images -> batches for `fit`: decoded once by Transform's graph, kept in memory or on disk."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from schema import features
from trainer.preprocessing import NORMALISED, OFFSET, SCALE

Images = npt.NDArray[np.float32]
_DECODE_BATCH = 256
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelConstants:
    """Transform's normalisation: normalised = (pixels - offset) / scale, each [C], pixels in [0, 1]."""

    offset: Images
    scale: Images

    def normalise(self, pixels: tf.Tensor) -> tf.Tensor:
        return (pixels - self.offset) / self.scale

    def to_pixels(self, normalised: tf.Tensor) -> tf.Tensor:
        return normalised * self.scale + self.offset


def parse_encoded(serialized: tf.Tensor) -> tf.Tensor:
    """Serialized tf.Examples [B] -> encoded images [B]."""
    return tf.io.parse_example(serialized, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})[features.IMAGE]


def pixel_constants(patterns: Sequence[str], transform: tft.TFTransformOutput) -> PixelConstants:
    """Read Transform's constants off its graph, fed with any one image."""
    layer = transform.transform_features_layer()
    one = next(iter(tf.data.TFRecordDataset(_files(patterns)).batch(1)))
    outputs = layer({features.IMAGE: parse_encoded(one)})
    return PixelConstants(outputs[OFFSET][0].numpy(), outputs[SCALE][0].numpy())


def count_records(patterns: Sequence[str]) -> int:
    """Records in all files that match."""
    return sum(1 for _ in tf.data.TFRecordDataset(_files(patterns), num_parallel_reads=1))


def decoded_batches(patterns: Sequence[str], transform: tft.TFTransformOutput) -> tf.data.Dataset:
    """Normalised images in file order: batches of up to 256, [B, H, W, C] float32."""
    layer = transform.transform_features_layer()

    @tf.autograph.experimental.do_not_convert
    def decode(serialized: tf.Tensor) -> tf.Tensor:
        return layer({features.IMAGE: parse_encoded(serialized)})[NORMALISED]

    records = tf.data.TFRecordDataset(_files(patterns))
    return records.batch(_DECODE_BATCH).map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


@dataclass(frozen=True)
class ImageSet:
    """One split's normalised images, in memory (`images`) or as a disk-cached dataset of single images."""

    count: int
    images: Images | None
    on_disk: Any = None

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> tf.data.Dataset:
        """Batches [B, H, W, C] float32; with a seed, in a new order each epoch, the same for the same seed."""
        if self.images is not None:
            # Gathering whole batches by index costs a fraction of batching single images.
            images = tf.constant(self.images)
            order = tf.data.Dataset.range(self.count)
            if shuffle_seed is not None:
                order = order.shuffle(self.count, seed=shuffle_seed, reshuffle_each_iteration=True)
            return order.batch(batch_size).map(lambda rows: tf.gather(images, rows), num_parallel_calls=2).prefetch(2)
        dataset = self.on_disk
        if shuffle_seed is not None:
            dataset = dataset.shuffle(8 * batch_size, seed=shuffle_seed, reshuffle_each_iteration=True)
        return dataset.batch(batch_size).prefetch(2)

    def iterate(self, batch_size: int = 256) -> Iterator[Images]:
        """The images in file order, as arrays."""
        for batch in self.batches(batch_size):
            yield batch.numpy()

    def sample(self, count: int) -> Images:
        """The first `count` images, or all if there are fewer."""
        if self.images is not None:
            return self.images[:count]
        return np.stack(list(self.on_disk.take(count).as_numpy_iterator()))


def load_images(
    patterns: Sequence[str], transform: tft.TFTransformOutput, *, cache_mb: int, cache_path: str
) -> ImageSet:
    """Decode a split once; up to `cache_mb` it stays in memory, beyond that it goes to `cache_path`."""
    count = count_records(patterns)
    batches = decoded_batches(patterns, transform)
    shape = tuple(batches.element_spec.shape[1:])
    size_mb = count * int(np.prod(shape)) * 4 / 2**20
    if size_mb > cache_mb:
        _LOG.warning("%d images take %.0f MB, more than trainer.cache_mb %d: cached on disk", count, size_mb, cache_mb)
        return ImageSet(count, None, batches.unbatch().cache(cache_path))
    images = np.empty((count, *shape), np.float32)
    row = 0
    for batch in batches:
        images[row : row + len(batch)] = batch.numpy()
        row += len(batch)
        if row % (40 * _DECODE_BATCH) == 0:
            _LOG.info("images decoded", extra={"done": row, "total": count, "unit": "images"})
    return ImageSet(count, images)


def _files(patterns: Sequence[str]) -> list[str]:
    return sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
