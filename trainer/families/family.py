"""What a model family provides to training: its networks, and what to do with them before the first epoch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.families.autoencoder import Autoencoder, Shape
from trainer.settings.model import ModelSettings

Images = npt.NDArray[np.float32]
SampleFn = Callable[[int], tuple[Images, Images]]
"""At most so many training images, as the encoder sees them and as pixels in [0, 1]: each [N, H, W, C]."""


def _keep_random_weights(autoencoder: Autoencoder, sample: SampleFn) -> None:
    """The start of a family that does not need the training images."""


@dataclass(frozen=True)
class Family:
    """The networks behind an entry of `trainer.settings.families`, which has the defaults and the fields."""

    build: Callable[[Shape, ModelSettings], Autoencoder]
    """Builds the networks with random weights from the global seed."""
    convolutional: bool = False
    """Whether the networks are convolutional if there are no `hidden_units`."""
    start: Callable[[Autoencoder, SampleFn], None] = _keep_random_weights
    """Initialises weights from training images, before the first epoch."""
