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
from trainer.data.tiles import cut
from trainer.settings.image import ImageSettings

Images = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
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
    """One split's normalised images [N, H, W, C], in memory or in a file of raw float32 that is read batch by batch.

    If the images are tiles, they are in random order.
    """

    count: int
    shape: tuple[int, int, int]
    images: Images | None
    file: IO[bytes] | None = None
    tiles_of: Rows | None = None
    """For tiles: the number of the image [N] that each is cut from."""
    numbers: Rows | None = None
    """For tiles: each one's number among those of its image [N], row by row."""
    mean: Images | None = None
    """For tiles: the mean of the images that they are cut from, [H, W, C]."""

    def mean_image(self) -> Images:
        """The mean of the split's images, normalised: [H, W, C], accumulated in double precision."""
        if self.mean is not None:
            return self.mean
        total: Any = sum(batch.sum(axis=0, dtype=np.float64) for batch in self.iterate())
        mean: Images = (total / self.count).astype(np.float32)
        return mean

    @property
    def sources(self) -> Rows:
        """The number of the image in the split that each row shows: [N]."""
        return np.arange(self.count) if self.tiles_of is None else self.tiles_of

    def rows(self, rows: Rows | slice) -> Images:
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


@dataclass(frozen=True)
class Draw:
    """The tiles of a split's images that become its rows: at most `max_tiles`, drawn at random and in random order."""

    image: ImageSettings
    max_tiles: int
    seed: int

    def rows(self, images: int) -> Rows:
        """The row of each tile [images, tiles], or -1 if it is not drawn."""
        tiles = images * self.image.tile_count
        drawn = np.random.default_rng(self.seed).permutation(tiles)[: self.max_tiles]
        rows = np.full(tiles, -1, np.int64)
        rows[drawn] = np.arange(len(drawn))
        return rows.reshape(images, self.image.tile_count)


def load_images(
    patterns: Sequence[str],
    transform: tft.TFTransformOutput,
    *,
    cache_mb: float,
    file: IO[bytes],
    draw: Draw | None = None,
) -> ImageSet:
    """Decode a split once. Up to `cache_mb` it stays in memory; a larger one goes to `file`, which must be empty.

    With `draw`, which needs `image.tiles`, the rows are tiles.
    """
    count = count_records(patterns)
    batches = decoded_batches(patterns, transform)
    shape = tuple(batches.element_spec.shape[1:]) if draw is None else draw.image.network_shape
    rows = np.arange(count)[:, np.newaxis] if draw is None else draw.rows(count)
    kept = int(np.count_nonzero(rows >= 0))
    size_mb = kept * int(np.prod(shape)) * 4 / 2**20
    in_memory = size_mb <= cache_mb
    if not in_memory:
        _LOG.warning(
            "%d %s take %.4g MB, more than the %.4g MB left of trainer.cache_mb, so training reads them from a "
            "temporary file in %s; raise trainer.cache_mb to keep them in memory",
            *(kept, "images" if draw is None else "tiles", size_mb, cache_mb, tempfile.gettempdir()),
        )
    images = np.empty((kept, *shape), np.float32) if in_memory else None
    total: Any = 0.0
    done = 0
    for number, batch in enumerate(batches, 1):
        of_batch = slice(done, done + len(batch))
        for own_rows, own in _parts_of(batch.numpy(), rows[of_batch], draw):
            if images is not None:
                images[own_rows] = own
            else:
                file.seek(int(own_rows[0]) * own[0].nbytes)
                file.write(own.tobytes())
        if draw is not None:
            total = total + tf.reduce_sum(tf.cast(batch, tf.float64), axis=0).numpy()
        done += len(batch)
        if number % _LOGGED_BATCHES == 0:
            _LOG.info("images decoded", extra={"done": done, "total": count, "unit": "images"})
    require_count(done, count, patterns)
    file.flush()
    stored = None if in_memory else file
    if draw is None:
        return ImageSet(count, shape, images, stored)
    tiles_of, numbers = np.empty((2, kept), np.int64)
    tiles_of[rows[rows >= 0]], numbers[rows[rows >= 0]] = np.nonzero(rows >= 0)
    return ImageSet(kept, shape, images, stored, tiles_of, numbers, (total / count).astype(np.float32))


def _parts_of(batch: Images, rows: Rows, draw: Draw | None) -> Iterator[tuple[Rows, Images]]:
    """Consecutive rows [R] and their images, given whole images [B, H, W, C] and the rows of their tiles [B, tiles]."""
    if draw is None:
        yield rows[:, 0], batch
        return
    for image, own in zip(batch, rows, strict=True):
        for number in np.flatnonzero(own >= 0):
            yield own[number : number + 1], cut(image, draw.image, int(number))[np.newaxis]
