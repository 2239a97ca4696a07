"""What a model family provides to training: its networks, and what to do with them before the first epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trainer.families.autoencoder import Autoencoder, Shape
from trainer.settings.model import ModelSettings

Images = npt.NDArray[np.float32]


class TrainingImages(Protocol):
    """The training images, or their tiles, as the encoder gets them: normalised, [N, H, W, C]."""

    @property
    def count(self) -> int: ...

    @property
    def shape(self) -> Shape: ...

    @property
    def sources(self) -> npt.NDArray[np.int64]:
        """The number [N] of the image that each row shows: several rows are tiles of the same."""

    def rows(self, rows: slice) -> Images:
        """The images of these rows, [R, H, W, C]."""

    def sample(self, count: int) -> Images:
        """The first `count` images, or all if there are fewer."""

    def iterate(self) -> Iterator[Images]:
        """All images, in batches that fit into memory."""


StartFn = Callable[[Autoencoder, TrainingImages, Callable[[Images], Any]], None]
"""(untrained autoencoder, training images, function from normalised images to pixels in [0, 1])."""


def _keep_random_weights(autoencoder: Autoencoder, images: TrainingImages, to_pixels: Callable[[Images], Any]) -> None:
    """The start of a family that does not need the training images."""


@dataclass(frozen=True)
class Family:
    """The networks behind an entry of `trainer.settings.families`, which has the defaults and the fields."""

    build: Callable[[Shape, ModelSettings], Autoencoder]
    """Builds the networks with random weights from the global seed."""
    convolutional: bool = False
    """Whether the networks are convolutional if there are no `hidden_units`."""
    start: StartFn = _keep_random_weights
    """Initialises weights from the training images, before the first epoch."""
    closed_form: bool = False
    """Whether `start` is all there is to training."""
