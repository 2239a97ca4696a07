"""Reports during training: progress, TensorBoard summaries, and an error when the loss diverges."""

import logging
import math
import time
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from PIL import Image
from tensorboard.plugins.histogram.summary_v2 import histogram_pb

from runtime.errors import UserError
from trainer.data.dataset import Images, ImageSet, PixelConstants
from trainer.families.autoencoder import Autoencoder

_LOG = logging.getLogger(__name__)
_ZOOM_TO_PX = 96
PICTURES = 10
"""Held-out images shown beside their reconstructions."""
_MEASURED = 256
"""Held-out images whose latents the histogram shows."""


class DivergedError(UserError):
    """The loss is no longer finite; the message suggests remedies."""


class ReportProgress(keras.callbacks.Callback):
    """Logs every epoch, with `done`, `total` and `unit` for progress bars."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = logs or {}
        detail = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        extra = {"done": epoch + 1, "total": self.params["epochs"], "unit": "epochs", "detail": detail}
        _LOG.info("epoch %d: %s", epoch + 1, detail, extra=extra)


class StopWhenDiverged(keras.callbacks.Callback):
    """Raises DivergedError soon after the loss has become infinite or NaN."""

    def __init__(self) -> None:
        super().__init__()
        self._supports_tf_logs = True  # `loss` is the mean since the epoch's start, which stays non-finite
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            rate = float(self.model.optimizer.learning_rate)
            raise DivergedError(
                f"the loss became {loss} in epoch {self._epoch + 1}, by batch {batch + 1}, at a learning rate of "
                f"{rate:.3g}; lower trainer.learning_rate, set trainer.warmup_epochs to 1 or trainer.clip_norm to 1.0, "
                "or look for damaged images"
            )


class WriteSummaries(keras.callbacks.Callback):
    """Writes to TensorBoard after every epoch: images/s, originals over reconstructions, latents, generated images."""

    def __init__(
        self,
        log_dir: str,
        autoencoder: Autoencoder,
        held_out: ImageSet,
        constants: PixelConstants,
        *,
        images_per_epoch: int,
    ) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(f"{log_dir}/pictures")
        self._autoencoder, self._constants = autoencoder, constants
        self._shown = held_out.sample(PICTURES)
        self._measured = held_out.sample(_MEASURED)
        self._noise: Images | None = None
        if autoencoder.divergence is not None:
            shape = (PICTURES, autoencoder.latent_dim)
            self._noise = np.random.default_rng(0).standard_normal(shape, np.float32)
        self._images_per_epoch = images_per_epoch
        self._began = self._ended = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.monotonic()

    def on_test_begin(self, logs: Any = None) -> None:
        self._ended = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        grid = originals_over_reconstructions(self._autoencoder, self._shown, self._constants)
        with self._writer.as_default(step=epoch):
            tf.summary.scalar("images per second", self._images_per_epoch / (self._ended - self._began))
            tf.summary.image("originals over reconstructions", grid[np.newaxis])
            latents = np.asarray(self._autoencoder.encoder(self._measured))
            # Computed in NumPy; tf.summary.histogram takes ten times as long.
            tf.summary.experimental.write_raw_pb(histogram_pb("latent", latents).SerializeToString())
            if self._noise is not None:
                samples = np.asarray(self._autoencoder.decoder(self._noise))
                tf.summary.image("samples", _as_bytes(np.concatenate(list(samples), axis=1))[np.newaxis])
        self._writer.flush()


def originals_over_reconstructions(autoencoder: Autoencoder, images: Images, constants: PixelConstants) -> Any:
    """A picture with two rows of N images, [2 H, N W, C] uint8, from normalised [N, H, W, C]."""
    originals = np.asarray(constants.to_pixels(images))
    rows = [originals, np.asarray(autoencoder.model(images))]
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    return _as_bytes(grid)


def _as_bytes(pixels: Any) -> Any:
    return np.clip(np.round(pixels * 255.0), 0, 255).astype(np.uint8)


def write_picture(grid: Any, image_height_px: int, path: str) -> None:
    """Save a grid [H, W, C] uint8 as PNG; small images are enlarged without smoothing."""
    zoom = max(1, _ZOOM_TO_PX // image_height_px)
    enlarged = np.kron(grid, np.ones((zoom, zoom, 1), np.uint8))
    with tf.io.gfile.GFile(path, "wb") as file:
        Image.fromarray(enlarged.squeeze(-1) if enlarged.shape[-1] == 1 else enlarged).save(file, "PNG")
