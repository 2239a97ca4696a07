"""Training images: decoded once from TFRecords by Transform's graph, kept in memory or on disk, served in batches."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft

from runtime.tfrecords import as_many_as_fit, count_records, files_of, require_count
from schema import features
from schema.features import LEVELS, NORMALISED, OFFSET, SCALE

Images = npt.NDArray[np.float32]
_LOGGED_BATCHES = 40
_BATCHES_AHEAD = 16
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelConstants:
    """Transform's normalisation: normalised = (pixels - offset) / scale, each [C], pixels in [0, 1]."""

    offset: Images
    scale: Images
    levels: tuple[float, float] = (0.0, 255.0)
    """The levels in files that become the pixels 0 and 1."""

    @property
    def change_nothing(self) -> bool:
        return bool(np.all(self.offset == 0.0) and np.all(self.scale == 1.0))

    def normalise(self, pixels: tf.Tensor) -> tf.Tensor:
        return pixels if self.change_nothing else (pixels - self.offset) / self.scale

    def to_pixels(self, normalised: tf.Tensor) -> tf.Tensor:
        return normalised if self.change_nothing else normalised * self.scale + self.offset


def parse_encoded(serialized: tf.Tensor) -> tf.Tensor:
    """Serialized tf.Examples [B] -> encoded images [B]."""
    return tf.io.parse_example(serialized, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})[features.IMAGE]


def pixel_constants(patterns: Sequence[str], transform: tft.TFTransformOutput) -> PixelConstants:
    """Transform's normalisation constants, read from its graph's output for one image."""
    layer = transform.transform_features_layer()
    one = next(iter(tf.data.TFRecordDataset(files_of(patterns)).batch(1)))
    outputs = layer({features.IMAGE: parse_encoded(one)})
    low, high = outputs[LEVELS][0].numpy().tolist()
    return PixelConstants(outputs[OFFSET][0].numpy(), outputs[SCALE][0].numpy(), (low, high))


def decoded_batches(patterns: Sequence[str], transform: tft.TFTransformOutput) -> tf.data.Dataset:
    """Normalised images in file order: [B, H, W, C] float32."""
    layer = transform.transform_features_layer()

    @tf.autograph.experimental.do_not_convert
    def decode(serialized: tf.Tensor) -> tf.Tensor:
        return layer({features.IMAGE: parse_encoded(serialized)})[NORMALISED]

    records = tf.data.TFRecordDataset(files_of(patterns))
    at_a_time = as_many_as_fit(transform.transformed_feature_spec()[NORMALISED].shape)
    return records.batch(at_a_time).map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


@dataclass(frozen=True)
class Share:
    """The part of every batch that this process reads: replicas `first` to `first + local` of `replicas`."""

    replicas: int = 1
    first: int = 0
    local: int = 1


WHOLE: Final = Share()


@dataclass(frozen=True)
class ImageSet:
    """One split's normalised images [N, H, W, C], in memory or in a file of raw float32 that is read batch by batch."""

    count: int
    shape: tuple[int, int, int]
    images: Images | None
    file: IO[bytes] | None = None

    def rows(self, rows: npt.NDArray[np.int64] | slice) -> Images:
        """The images of these rows, [R, H, W, C]."""
        if self.images is not None:
            return self.images[rows]
        assert self.file is not None
        # A new mapping for every batch, so that pages already read do not add up in the process's memory.
        return np.array(np.memmap(self.file, np.float32, "r", shape=(self.count, *self.shape))[rows])

    def joined(self, other: "ImageSet") -> "ImageSet":
        """The images of both, in memory: for few images."""
        images = np.concatenate([self.rows(slice(None)), other.rows(slice(None))])
        return ImageSet(len(images), self.shape, images)

    def steps(self, batch_size: int) -> int:
        """Training steps in an epoch. Images left over after whole batches are skipped; each epoch skips others."""
        return max(1, self.count // batch_size)

    def training_batches(
        self,
        finish: Callable[[tf.Tensor, tf.Tensor], Any],
        batch_size: int,
        *,
        seed: int,
        epochs: int,
        first_step: int = 0,
        share: Share = WHOLE,
    ) -> tf.data.Dataset:
        """`finish(global step [], images [B, H, W, C])` for all epochs in one stream, starting at `first_step`.

        The order depends only on seed and epoch, so that training can resume at any step as if it had not stopped. With
        several replicas an element is one replica's part of a batch: B = batch_size / replicas.
        """
        orders = self._orders(batch_size, seed=seed, epochs=epochs, first_step=first_step).unbatch()
        orders = orders.enumerate(first_step)
        if share.replicas > 1:
            orders = orders.flat_map(lambda step, rows: _parts(rows, share).map(lambda part: (step, part)))
        gather = self._gather()
        ahead = as_many_as_fit((batch_size, *self.shape), at_most=_BATCHES_AHEAD)
        # A single prefetching thread: handing batches between threads costs more than making them.
        return orders.map(lambda step, rows: finish(step, gather(rows))).prefetch(ahead)

    def rows_of_steps(
        self, batch_size: int, *, seed: int, epochs: int, first_step: int, steps_per_call: int
    ) -> tf.data.Dataset:
        """The rows of `training_batches` for several steps at a time: [steps_per_call, B], 0 after an epoch's end."""

        def divide(rows: tf.Tensor) -> tf.data.Dataset:
            missing = -tf.shape(rows)[0] % steps_per_call
            rows = tf.reshape(tf.pad(rows, [[0, missing], [0, 0]]), [-1, steps_per_call, rows.shape[1]])
            return tf.data.Dataset.from_tensor_slices(rows)

        return self._orders(batch_size, seed=seed, epochs=epochs, first_step=first_step).flat_map(divide)

    def _orders(self, batch_size: int, *, seed: int, epochs: int, first_step: int) -> tf.data.Dataset:
        """For each epoch, the rows of its remaining batches: [steps, B]."""
        batch_size, steps = min(batch_size, self.count), self.steps(batch_size)
        first_epoch, done = divmod(first_step, steps)

        def order_of(epoch: tf.Tensor) -> tf.Tensor:
            rows = tf.random.experimental.stateless_shuffle(tf.range(self.count, dtype=tf.int64), [seed, epoch])
            rows = tf.reshape(rows[: steps * batch_size], [steps, batch_size])
            return rows[tf.where(epoch == first_epoch, done, 0) :]

        return tf.data.Dataset.range(first_epoch, epochs).map(order_of)

    def batches(self, batch_size: int, *, share: Share = WHOLE) -> tf.data.Dataset:
        """Batches [B, H, W, C] in file order, the last one smaller.

        With several replicas it repeats for ever, and the first images fill up the last batch so that it can be divided
        evenly.
        """
        count = self.count + -self.count % share.replicas
        starts = tf.data.Dataset.range(0, count, batch_size)
        orders = starts.map(lambda start: tf.range(start, tf.minimum(start + batch_size, count)) % self.count)
        if share.replicas > 1:
            orders = orders.flat_map(lambda rows: _parts(rows, share)).repeat()
        return orders.map(self._gather()).prefetch(1)

    def iterate(self) -> Iterator[Images]:
        """The images in file order, as arrays."""
        at_a_time = as_many_as_fit(self.shape)
        for start in range(0, self.count, at_a_time):
            yield self.rows(slice(start, start + at_a_time))

    def sample(self, count: int) -> Images:
        """The first `count` images, or all if there are fewer."""
        return self.rows(slice(count))

    def _gather(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Rows [R] -> images [R, H, W, C]; gathering whole batches is far cheaper than batching single images."""
        if self.images is not None:
            images = tf.constant(self.images)
            return lambda rows: tf.gather(images, rows)

        def read(rows: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(self.rows, [rows], tf.float32), (None, *self.shape))

        return read


def _parts(rows: tf.Tensor, share: Share) -> tf.data.Dataset:
    parts = tf.reshape(rows, [share.replicas, -1])
    return tf.data.Dataset.from_tensor_slices(parts[share.first : share.first + share.local])


def load_images(
    patterns: Sequence[str], transform: tft.TFTransformOutput, *, cache_mb: float, file: IO[bytes]
) -> ImageSet:
    """Decode a split once. Up to `cache_mb` it stays in memory; a larger one goes to `file`, which must be empty."""
    count = count_records(patterns)
    batches = decoded_batches(patterns, transform)
    shape = tuple(batches.element_spec.shape[1:])
    size_mb = count * int(np.prod(shape)) * 4 / 2**20
    in_memory = size_mb <= cache_mb
    if not in_memory:
        _LOG.warning(
            "%d images take %.4g MB, more than the %.4g MB left of trainer.cache_mb, so training reads them from a "
            "temporary file in %s; raise trainer.cache_mb to keep them in memory",
            *(count, size_mb, cache_mb, tempfile.gettempdir()),
        )
    images = np.empty((count, *shape), np.float32) if in_memory else None
    row = 0
    for number, batch in enumerate(batches, 1):
        if images is not None:
            images[row : row + len(batch)] = batch.numpy()
        else:
            file.write(batch.numpy().tobytes())
        row += len(batch)
        if number % _LOGGED_BATCHES == 0:
            _LOG.info("images decoded", extra={"done": row, "total": count, "unit": "images"})
    require_count(row, count, patterns)
    file.flush()
    return ImageSet(count, shape, images, None if in_memory else file)
