"""What scores learn from training images, in one pass and in bounded memory: a learner per score.

A learner that is fitted to error maps sees each map once; one that is fitted to latents keeps them, at most 4,096.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.covariance import LedoitWolf

from runtime.errors import UserError
from schema.signatures import LATENT
from trainer.scoring.error_maps import Tensors, map_of, smoothed
from trainer.settings.calibration import LARGEST_LATENT

Floats = npt.NDArray[np.float32]
Fitted = dict[str, Floats]
_BANK = 2048
_SMALLEST = 1e-12


class ScoreError(UserError):
    """The configured score cannot be computed for this model; the message says what to change."""


def require_finite(scores: npt.NDArray[Any], name: str) -> None:
    """Raise ScoreError unless the score is finite for every held-out image."""
    broken = int(np.count_nonzero(~np.isfinite(scores)))
    if broken:
        raise ScoreError(
            f"the score {name!r} is not finite for {broken:,} of {len(scores):,} held-out images: the model has "
            "non-finite weights; retrain it with a lower trainer.learning_rate or with trainer.clip_norm"
        )


class Learner(Protocol):
    """`add` batches: pixels [B, H, W, C] and the autoencoder's outputs for them; then ask for the `fitted` numbers."""

    of_maps: bool
    """Whether it is fitted to error maps, not to latents."""

    def add(self, pixels: tf.Tensor, outputs: Tensors) -> None: ...

    def fitted(self) -> Fitted: ...


class UsualErrors:
    """Each position's usual error plus the mean of all, which bounds the weight of positions without any error."""

    of_maps = True

    def __init__(self) -> None:
        self._total: Any = 0.0
        self._count = 0

    def add(self, pixels: tf.Tensor, outputs: Tensors) -> None:
        maps = map_of(pixels, outputs).numpy()
        self._total = self._total + maps.sum(axis=0, dtype=np.float64)
        self._count += len(maps)

    def fitted(self) -> Fitted:
        usual = self._total / self._count
        return {"usual": (usual + usual.mean() + _SMALLEST).astype(np.float32)}


class StandardErrors:
    """Mean of each position's smoothed error, and its standard deviation plus the mean of all standard deviations.

    The sum bounds the weight of positions whose error hardly varies, such as an empty background.
    """

    of_maps = True

    def __init__(self, window: tuple[int, int]) -> None:
        self._window = window
        self._sum: Any = 0.0
        self._squares: Any = 0.0
        self._count = 0

    def add(self, pixels: tf.Tensor, outputs: Tensors) -> None:
        values = smoothed(map_of(pixels, outputs), self._window).numpy().astype(np.float64)
        self._sum = self._sum + values.sum(axis=0)
        self._squares = self._squares + (values**2).sum(axis=0)
        self._count += len(values)

    def fitted(self) -> Fitted:
        mean = self._sum / self._count
        deviation = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0.0))
        spread = deviation + deviation.mean() + _SMALLEST
        return {"mean": mean.astype(np.float32), "spread": spread.astype(np.float32)}


class Latents:
    """Mean and whitening of the latents, with a shrunk covariance (Ledoit & Wolf 2004); with a bank, the latents too.

    The bank holds at most 2,048 evenly spaced whitened latents.
    """

    of_maps = False

    def __init__(self, outputs: Tensors, *, bank: bool) -> None:
        """Raises ScoreError if the latents in `outputs` are too large."""
        size = outputs[LATENT].shape[1]
        if size > LARGEST_LATENT:
            raise ScoreError(
                f"evaluation.score latent_distance and neighbour_distance: the latent has {size} numbers, but at most "
                f"{LARGEST_LATENT} are supported; set trainer.latent_dim, or choose another score"
            )
        self._bank = bank
        self._latents: list[Floats] = []

    def add(self, pixels: tf.Tensor, outputs: Tensors) -> None:
        self._latents.append(outputs[LATENT].numpy())

    def fitted(self) -> Fitted:
        latents = np.concatenate(self._latents)
        if not np.isfinite(latents).all():  # of a model with non-finite weights, which its scores then show
            return self._numbers(latents, latents[0], np.full((latents.shape[1],) * 2, np.nan, np.float32))
        gaussian = LedoitWolf().fit(latents)
        values, vectors = np.linalg.eigh(gaussian.covariance_)
        whitening = (vectors / np.sqrt(np.maximum(values, _SMALLEST))).astype(np.float32)
        return self._numbers(latents, gaussian.location_.astype(np.float32), whitening)

    def _numbers(self, latents: Floats, mean: Floats, whitening: Floats) -> Fitted:
        fitted = {"mean": mean, "whitening": whitening}
        if self._bank:
            kept = np.linspace(0, len(latents) - 1, min(_BANK, len(latents))).round().astype(int)
            fitted["bank"] = (latents[kept] - mean) @ whitening
        return fitted
