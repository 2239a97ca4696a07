"""Values of `trainer:` fields that are null: they follow the number and the size of the training images."""

import math

from trainer.settings.families import FAMILY_SETTINGS
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 1500, 5, 200
_BATCHES_PER_EPOCH, _SMALLEST_BATCH, _LARGEST_BATCH = 16, 8, 64
_IMAGES_PER_LATENT_NUMBER, _SMALLEST_LATENT, _FEWEST_PIXELS_LATENT, _LARGEST_LATENT = 4, 8, 32, 128
_LARGEST_MAP_PX, _FIRST_FILTERS, _MOST_FILTERS = 8, 32, 64
_FEW_IMAGES = 1000
"""Training images below which a network gets half the filters."""


def following_images(settings: TrainerSettings, image: ImageSettings, count: int) -> TrainerSettings:
    """The settings with values for the fields that are null, for this many training images; docs/training.md.

    With tiles, the network's images are tiles.
    """
    if FAMILY_SETTINGS[settings.preset].closed_form:
        return settings
    values = settings.model_dump()
    count = min(count * image.tile_count, settings.max_tiles) if image.tiles else count
    batch_size = settings.batch_size or batch_size_for(count)
    values["batch_size"] = batch_size
    values["epochs"] = settings.epochs or epochs_for(max(1, count // batch_size))
    if FAMILY_SETTINGS[settings.preset].follows_images:
        values["latent_dim"] = settings.latent_dim or latent_dim_for(image, count)
        values["filters"] = settings.filters or filters_for(image.network_shape, few_images=count < _FEW_IMAGES)
    return TrainerSettings.model_validate(values)


def batch_size_for(count: int) -> int:
    """A power of two that makes about 16 batches or more, from 8 to 64."""
    return min(max(_power_of_two(count / _BATCHES_PER_EPOCH), _SMALLEST_BATCH), _LARGEST_BATCH)


def epochs_for(steps_per_epoch: int) -> int:
    """Epochs that make 1,500 steps, from 5 to 200."""
    return min(max(math.ceil(_STEPS / steps_per_epoch), _FEWEST_EPOCHS), _MOST_EPOCHS)


def latent_dim_for(image: ImageSettings, count: int) -> int:
    """The power of two nearest below the image's side, from 32 to 128; at most a number for every four images."""
    height_px, width_px, _ = image.network_shape
    side_px = math.sqrt(height_px * width_px)
    by_size = min(max(_power_of_two(side_px), _FEWEST_PIXELS_LATENT), _LARGEST_LATENT)
    by_count = max(_power_of_two(count / _IMAGES_PER_LATENT_NUMBER), _SMALLEST_LATENT)
    return min(by_size, by_count, math.prod(image.network_shape) // 2)


def filters_for(shape: tuple[int, int, int], *, few_images: bool = False) -> tuple[int, ...]:
    """Filters of the stages down to a map of at most 8x8: 32 for the first, 64 for the others; half for few images."""
    stages = max(1, math.ceil(math.log2(max(shape[:2]) / _LARGEST_MAP_PX)))
    return tuple(min(_FIRST_FILTERS * 2**stage, _MOST_FILTERS) // (2 if few_images else 1) for stage in range(stages))


def _power_of_two(number: float) -> int:
    """The largest power of two that is not above `number`, and at least 1."""
    return int(2 ** math.floor(math.log2(max(number, 1.0))))
