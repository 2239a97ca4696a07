"""The benchmark's tasks: folders in MVTec's layout, read as the pipeline reads them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.timing import REPOSITORY, BenchmarkError
from components.settings import DataSettings
from components.sources.folder import plan_folder
from components.sources.plan import SourceImage
from schema.features import IMAGE, MASK, TEST, TRAIN, UNKNOWN
from trainer.settings.image import ImageSettings

DEFECTS_VARIABLE = "DEFECTS_FOLDER"
"""Environment variable: a folder of tasks."""
_SAMPLE = REPOSITORY / "sample_images"
_BATCH_VALUES = 2**22

Floats = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """Some images of a split: their files' bytes, pixels [B, H, W, C] in [0, 1], and what is known about them."""

    encoded: list[bytes]
    pixels: Floats
    is_anomaly: npt.NDArray[np.int64]
    """[B]"""
    masks: npt.NDArray[np.int8]
    """[B, H, W]: 0 sound, 1 defective, -1 unknown."""


@dataclass(frozen=True)
class Task:
    """A folder with `train/good`, `test/good`, and `test/<defect>`."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def data(self) -> DataSettings:
        return DataSettings(source="folder", path=str(self.folder))

    def fingerprint(self) -> str:
        """Changes when a file is added, removed or changed."""
        return plan_folder(self.data).fingerprint

    def batches(self, split: str, image: ImageSettings, *, limit: int | None = None, seed: int = 0) -> Iterator[Batch]:
        """The images of a split in order, or `limit` of them drawn at random, as few at a time as memory needs."""
        count = sum(1 for _ in self._entries(split))
        kept = set(range(count))
        if limit is not None and limit < count:
            kept = set(np.random.default_rng(seed).choice(count, limit, replace=False).tolist())
        images = (one for index, one in enumerate(self._images(split)) if index in kept)
        size = min(32, max(1, _BATCH_VALUES // image.values_per_image))
        while batch := list(islice(images, size)):
            yield _decoded(batch, image)

    def _entries(self, split: str) -> Iterator[Any]:
        for shard in plan_folder(self.data).shards:
            yield from (entry for entry in shard.entries if entry.named_split == split)  # type: ignore[attr-defined]

    def _images(self, split: str) -> Iterator[SourceImage]:
        for shard in plan_folder(self.data).shards:
            for one in shard.read():
                if not isinstance(one, SourceImage):
                    raise BenchmarkError(f"{self.folder}: {one.image_id}: {one.reason}; remove or replace the file")
                if one.named_split == split:
                    yield one


def find_tasks(data: Path | None) -> list[Task]:
    """`sample_images`, and the tasks in `data`: a folder in MVTec's layout, or a folder of such folders.

    Without `data`, those in $DEFECTS_FOLDER, if it is set. Raises BenchmarkError.
    """
    given = data or os.environ.get(DEFECTS_VARIABLE)
    found = _tasks_in(Path(given).absolute()) if given else []
    tasks = [Task(folder) for folder in dict.fromkeys([*found, _SAMPLE])]
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise BenchmarkError(f"{given}: two tasks have the same name ({', '.join(names)}); rename a folder")
    return tasks


def _tasks_in(folder: Path) -> list[Path]:
    found = [folder] if _is_task(folder) else sorted(filter(_is_task, folder.glob("*")))
    if not found:
        raise BenchmarkError(f"{folder}: no folder with train/good and test/good; name one in MVTec's layout")
    return found


def _is_task(folder: Path) -> bool:
    return all((folder / split / "good").is_dir() for split in (TRAIN, TEST))


def _decoded(images: Sequence[SourceImage], image: ImageSettings) -> Batch:
    import tensorflow as tf

    from trainer.data.decoding import decode_images
    from trainer.data.masks import masks_of

    encoded = [one.stored.encoded for one in images]
    is_anomaly = np.array([UNKNOWN if one.is_anomaly is None else one.is_anomaly for one in images], np.int64)
    examples = [_example(one) for one in images]
    pixels = decode_images(tf.constant(encoded), image)
    masks = masks_of(tf.constant(examples), tf.constant(is_anomaly), pixels, image).numpy()
    return Batch(encoded, pixels.numpy(), is_anomaly, masks)


def _example(one: SourceImage) -> bytes:
    """A serialized tf.Example with the mask, if there is one."""
    import tensorflow as tf

    parts = {IMAGE: one.stored.encoded} | ({MASK: one.mask} if one.mask else {})
    lists = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in parts.items()}
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()
