"""Fit an autoencoder to a split of images."""

import tensorflow as tf
import tf_keras as keras

from trainer.callbacks import PICTURES, ReportProgress, StopWhenDiverged, WritePictures
from trainer.dataset import ImageSet, PixelConstants
from trainer.losses import error_per_image, weighted_loss
from trainer.models import Autoencoder, pays_to_compile
from trainer.settings import TrainerSettings


def train_autoencoder(
    autoencoder: Autoencoder,
    train: ImageSet,
    held_out: ImageSet,
    constants: PixelConstants,
    settings: TrainerSettings,
    *,
    seed: int,
    log_dir: str,
) -> dict[str, list[float]]:
    """Fit in place; the target of a normalised image is its pixels in [0, 1]. Returns the loss curves."""

    @tf.autograph.experimental.do_not_convert
    def with_target(normalised: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return normalised, constants.to_pixels(normalised)

    loss = weighted_loss(settings.loss)
    autoencoder.model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=lambda pixels, reconstruction: loss(pixels, reconstruction),
        metrics=[keras.metrics.MeanMetricWrapper(error_per_image, name="error")],
        jit_compile=pays_to_compile(settings),
    )
    callbacks = [
        StopWhenDiverged(),
        keras.callbacks.TensorBoard(log_dir, write_graph=False),
        WritePictures(f"{log_dir}/pictures", autoencoder, held_out.sample(PICTURES), constants),
        ReportProgress(),
    ]
    if settings.early_stopping_patience:
        callbacks.append(
            keras.callbacks.EarlyStopping(patience=settings.early_stopping_patience, restore_best_weights=True)
        )
    history = autoencoder.model.fit(
        train.batches(settings.batch_size, shuffle_seed=seed).map(with_target),
        validation_data=held_out.batches(settings.batch_size).map(with_target),
        epochs=settings.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    return {name: [float(value) for value in values] for name, values in history.history.items()}
