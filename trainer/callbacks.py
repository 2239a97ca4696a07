"""What is told while a model trains: progress, TensorBoard pictures, and an explanation when it diverges."""

import logging
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from trainer.dataset import Images, PixelConstants
from trainer.models import Autoencoder

_LOG = logging.getLogger(__name__)
_ZOOM_TO_PX = 96
PICTURES = 10
"""Held-out images shown beside their reconstructions."""


class DivergedError(Exception):
    """The loss is no longer a number; the message names the remedies."""


class ReportProgress(keras.callbacks.Callback):
    """Logs every epoch, with `done`, `total` and `unit` for whoever draws a progress bar."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = logs or {}
        detail = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        extra = {"done": epoch + 1, "total": self.params["epochs"], "unit": "epochs", "detail": detail}
        _LOG.info("epoch %d: %s", epoch + 1, detail, extra=extra)


class StopWhenDiverged(keras.callbacks.Callback):
    """Raises DivergedError as soon as a batch's loss is not finite."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} at batch {batch}: lower trainer.learning_rate, or look for damaged images"
            )


class WritePictures(keras.callbacks.Callback):
    """TensorBoard: originals over reconstructions, and a histogram of the latent, after every epoch."""

    def __init__(self, log_dir: str, autoencoder: Autoencoder, images: Images, constants: PixelConstants) -> None:
        """`images` [N, H, W, C] normalised: the ones to show."""
        super().__init__()
        self._writer = tf.summary.create_file_writer(log_dir)
        self._autoencoder = autoencoder
        self._images = images
        self._constants = constants

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        grid = originals_over_reconstructions(self._autoencoder, self._images, self._constants)
        with self._writer.as_default(step=epoch):
            tf.summary.image("originals over reconstructions", grid[np.newaxis])
            tf.summary.histogram("latent", self._autoencoder.encoder(self._images))
        self._writer.flush()


def originals_over_reconstructions(autoencoder: Autoencoder, images: Images, constants: PixelConstants) -> Any:
    """Two rows of N pictures: [2 H, N W, C] uint8, from normalised [N, H, W, C]."""
    originals = np.asarray(constants.to_pixels(images))
    rows = [originals, np.asarray(autoencoder.model(images))]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    return np.clip(np.round(grid * 255.0), 0, 255).astype(np.uint8)


def write_picture(grid: Any, image_height_px: int, path: str) -> None:
    """Save a grid [H, W, C] uint8 as PNG, small images enlarged without smoothing."""
    zoom = max(1, _ZOOM_TO_PX // image_height_px)
    enlarged = np.kron(grid, np.ones((zoom, zoom, 1), np.uint8))
    with tf.io.gfile.GFile(path, "wb") as file:
        Image.fromarray(enlarged.squeeze(-1) if enlarged.shape[-1] == 1 else enlarged).save(file, "PNG")
