"""Which weights become the model: the last ones, those of the epoch with the lowest validation loss, or the start."""

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras
from scipy.stats import ttest_rel  # type: ignore[import-untyped]

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.fitting.checkpoint import START
from trainer.scoring.losses import weighted_loss
from trainer.settings.trainer import TrainerSettings

_LOG = logging.getLogger(__name__)
_COMPARED = 1000
"""Held-out images on which the best epoch is compared with the start: with more, hardly any difference is chance."""
_CHANCE = 0.01
"""Probability at which such a difference, if it were chance, counts as clear."""


def early_stopping(settings: TrainerSettings) -> keras.callbacks.EarlyStopping | None:
    """The callback that stops early and remembers the best weights; without a patience it never stops."""
    if not settings.early_stopping_patience and not settings.keeps_best:
        return None
    patience = settings.early_stopping_patience or settings.span[1] + 1
    return keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=settings.keeps_best)


def restore_best(
    model: keras.Model,
    stopping: keras.callbacks.EarlyStopping,
    start: list[npt.NDArray[Any]],
    *,
    held_out: ImageSet,
    constants: PixelConstants,
    settings: TrainerSettings,
) -> None:
    """Set the weights of the best epoch, which Keras does only when it stops early, or of a better `start`.

    The start of a linear path is PCA, which some epoch surpasses by chance if few images are held out. It is therefore
    kept unless the best epoch is clearly better.
    """
    improved = stopping.best_epoch > START
    if improved and settings.linear_path:
        losses = []
        for weights in (start, stopping.best_weights):
            model.set_weights(weights)
            losses.append(_losses(model, held_out, constants, settings))
        improved = clearly_lower(losses[1], than=losses[0])
    model.set_weights(stopping.best_weights if improved else start)
    if improved:
        _LOG.info("kept the weights of epoch %d (validation loss %.4g)", stopping.best_epoch + 1, stopping.best)
        return
    _LOG.warning(
        "no epoch had a clearly lower validation loss than the start, so the model is the one that training started "
        "from; use more images, lower trainer.learning_rate, or train for more epochs",
        extra={"notice": True},
    )


def clearly_lower(losses: npt.NDArray[Any], *, than: npt.NDArray[Any]) -> bool:
    """Whether the losses [N] of the same images are lower on average, by a one-sided paired t-test at the 1 % level."""
    if len(losses) < 2 or np.array_equal(losses, than):
        return False
    return bool(ttest_rel(than.astype(np.float64), losses.astype(np.float64), alternative="greater").pvalue < _CHANCE)


def _losses(
    model: keras.Model, held_out: ImageSet, constants: PixelConstants, settings: TrainerSettings
) -> npt.NDArray[Any]:
    """The loss of each of the first held-out images, without penalties."""
    loss, found, count = weighted_loss(settings.loss), [], 0
    for images in held_out.iterate():
        found.append(loss(constants.to_pixels(images), model(images, training=False)))
        count += len(images)
        if count >= _COMPARED:
            break
    return np.concatenate(found)
