"""The references by name, and their measurement."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench.detection.measurement import Measurement, milliseconds_per_image, peak_memory_here_mb
from bench.detection.method import Fit
from bench.detection.padim import fit_padim
from bench.detection.patchcore import fit_patchcore
from bench.detection.pixel_references import fit_nearest_neighbour, fit_principal_components
from bench.detection.quality import measure_quality
from bench.detection.tasks import Floats, Task
from schema.features import TEST, TRAIN
from trainer.settings.image import ImageSettings

_VALUES_IN_MEMORY = 150_000_000
"""What a method that keeps all training images may keep: 1,000 images of 224x224 in colour."""


@dataclass(frozen=True)
class Reference:
    """A method from the literature."""

    fit: Fit
    keeps_images: bool = False


REFERENCES = {
    "PCA-16": Reference(partial(fit_principal_components, components=16), keeps_images=True),
    "PCA-128": Reference(partial(fit_principal_components, components=128), keeps_images=True),
    "nearest in PCA-16": Reference(fit_nearest_neighbour, keeps_images=True),
    "PaDiM": Reference(fit_padim),
    "PatchCore": Reference(fit_patchcore),
}


def measure_reference(task: Task, method: str, seed: int, image: ImageSettings) -> Measurement:
    """Fit one of REFERENCES to all images in `train`, and measure it on `test`. Call it in a new process."""
    import tensorflow as tf

    from trainer.data.decoding import decode_images

    reference = REFERENCES[method]
    limit = _VALUES_IN_MEMORY // image.values_per_image if reference.keeps_images else None

    def training() -> Iterator[Floats]:
        return (batch.pixels for batch in task.batches(TRAIN, image, limit=limit, seed=seed))

    started = time.perf_counter()
    detector = reference.fit(training, seed)
    training_s = time.perf_counter() - started
    quality = measure_quality(task.batches(TEST, image), lambda batch: detector(batch.pixels))
    decode = tf.function(lambda encoded: decode_images(encoded, image), autograph=False)
    files = next(task.batches(TEST, image)).encoded
    milliseconds = milliseconds_per_image(lambda file: detector(decode(tf.constant([file])).numpy()), files)
    return Measurement(task.name, method, seed, quality, training_s, milliseconds, peak_memory_here_mb())
