"""Compares our Trainer with a plain `model.fit` on arrays in memory: same model, data and loss."""

import logging
import math
import tempfile
import time
from typing import Any

import numpy as np
import tf_keras as keras

from bench.comparison import Comparison
from bench.timing import BenchmarkError
from trainer.data.dataset import Images, ImageSet, PixelConstants
from trainer.families.registry import build_autoencoder
from trainer.fitting.tracing import keep_autograph_out
from trainer.fitting.training_loop import train_autoencoder
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

# The claims: images per second, as a multiple of the plain loop's.
CLAIMS = {"dense": 1.8, "conv": 1.0}
_IMAGES = {
    ("tiny", "dense"): (1_280, 128),
    ("tiny", "conv"): (1_280, 128),
    # An epoch's fixed cost (TensorBoard, checkpoint) is half of a dense epoch of 100 steps, but little of 469 steps.
    ("small", "dense"): (60_000, 6_000),
    ("small", "conv"): (12_800, 1_280),
    ("full", "dense"): (60_000, 6_000),
    ("full", "conv"): (60_000, 6_000),
}
_EPOCHS = {"tiny": 1, "small": 2, "full": 4}
_SHAPE = (28, 28, 1)
_SAME_LOSS = 0.1


def compare(size: str, repetitions: int) -> list[Comparison]:
    """Seconds of all epochs but the first, in which both sides trace and compile."""
    keep_autograph_out()
    return [_compare(preset, size, repetitions) for preset in CLAIMS]


def _compare(preset: str, size: str, repetitions: int) -> Comparison:
    epochs = _EPOCHS[size]
    train, held_out = (_blobs(count, seed) for seed, count in enumerate(_IMAGES[size, preset]))
    settings = TrainerSettings.model_validate({"preset": preset, "epochs": 1 + epochs})
    pairs = [(_ours(settings, train, held_out), _plain(settings, train, held_out)) for _ in range(repetitions)]
    for (_, our_loss), (_, plain_loss) in pairs:
        if not math.isclose(our_loss, plain_loss, rel_tol=_SAME_LOSS):
            losses = f"({our_loss:.4f} and {plain_loss:.4f})"
            raise BenchmarkError(f"{preset}: the losses differ {losses}, so the times cannot be compared")
    return Comparison(
        area="training",
        what=f"{preset}, {len(train):,} images of 28x28, {epochs} epochs",
        reference="model.fit on arrays in memory",
        ours_s=tuple(ours[0] for ours, _ in pairs),
        reference_s=tuple(plain[0] for _, plain in pairs),
        max_ratio=1 / CLAIMS[preset],
        items=epochs * len(train),
    )


def _ours(settings: TrainerSettings, train: Images, held_out: Images) -> tuple[float, float]:
    """(seconds, last validation loss), including checkpoints and TensorBoard, as in a pipeline."""
    unit = PixelConstants(np.zeros(1, np.float32), np.ones(1, np.float32))
    ends = _EpochEnds()
    logger = logging.getLogger("trainer.fitting.callbacks")
    logger.addHandler(ends)
    logger.setLevel(logging.INFO)
    keras.utils.set_random_seed(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            history = train_autoencoder(
                build_autoencoder(ImageSettings(height_px=28, width_px=28), settings),
                ImageSet(len(train), _SHAPE, train),
                ImageSet(len(held_out), _SHAPE, held_out),
                unit,
                settings,
                seed=0,
                log_dir=f"{folder}/log",
                checkpoint_folder=f"{folder}/checkpoint",
            )
    finally:
        logger.removeHandler(ends)
    return ends.times[-1] - ends.times[0], history["val_loss"][-1]


class _EpochEnds(logging.Handler):
    """Records when our Trainer logs the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "unit", "") == "epochs":
            self.times.append(time.monotonic())


def _plain(settings: TrainerSettings, train: Images, held_out: Images) -> tuple[float, float]:
    """(seconds, last validation loss) of a tutorial's loop: Adam, Keras's own loss, no other options."""
    times: list[float] = []
    keras.utils.set_random_seed(0)
    model = build_autoencoder(ImageSettings(height_px=28, width_px=28), settings).model
    model.compile("adam", "binary_crossentropy")
    history: Any = model.fit(
        train,
        train,
        validation_data=(held_out, held_out),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: times.append(time.monotonic()))],
        verbose=0,
    )
    return times[-1] - times[0], history.history["val_loss"][-1]


def _blobs(count: int, seed: int) -> Images:
    """Bright spots of varying place and size on black, similar to digits: [count, 28, 28, 1] in [0, 1]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28].astype(np.float32)
    centre = random.uniform(8, 20, (2, count, 1, 1)).astype(np.float32)
    width = random.uniform(2, 5, (2, count, 1, 1)).astype(np.float32)
    images: Images = np.exp(-(((y - centre[0]) / width[0]) ** 2) - ((x - centre[1]) / width[1]) ** 2)
    return images[..., np.newaxis]
