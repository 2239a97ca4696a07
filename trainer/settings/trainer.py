"""The `trainer:` section of the configuration."""

from typing import Literal

from pydantic import Field, model_validator

from runtime.settings import Section
from trainer.settings.families import FAMILY_SETTINGS
from trainer.settings.model import ModelSettings

GRADIENT_DESCENT_FIELDS = (
    "batch_size", "epochs", "learning_rate", "learning_rate_schedule", "warmup_epochs", "clip_norm",
    "weight_averaging", "augmentation", "precision", "distribution", "warm_start", "early_stopping_patience",
    "keep_best",
)  # fmt: skip


class AugmentationSettings(Section):
    """Random changes to training images, drawn for each image in each epoch; the target is the changed image."""

    shift_px: float = Field(0.0, ge=0)
    """Largest shift in each direction, in pixels."""
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    """Largest rotation in either direction, in degrees."""
    flip_horizontal: bool = False
    """Mirror half of the images left to right."""
    flip_vertical: bool = False
    """Mirror half of the images top to bottom."""
    brightness: float = Field(0.0, ge=0, le=1)
    """Largest change in brightness: the value added to or subtracted from all pixels, which lie in [0, 1]."""

    @property
    def changes_nothing(self) -> bool:
        """Whether augmentation is off."""
        return self == AugmentationSettings()


class TrainerSettings(ModelSettings):
    """The model and its training. Fields that are not set take the preset's values."""

    batch_size: int | None = Field(256, ge=1)
    """Images per training step, over all devices together. null: the number of images determines it."""
    epochs: int | None = Field(5, ge=1)
    """Passes over the training images, 5 for most presets. null: the number of images determines it."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's learning rate, at its peak if a warm-up or a schedule changes it."""
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` lowers the learning rate to 0 by the end of the last epoch."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs, fractions allowed, during which the learning rate rises linearly from 0."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest global norm of the gradient; larger gradients are scaled down to it. null: no limit."""
    weight_averaging: float | None = Field(None, gt=0, lt=1)
    """Momentum of an exponential moving average of the weights, such as 0.999; the model gets the average when training
    ends. null: no averaging."""
    augmentation: AugmentationSettings = Field(default_factory=AugmentationSettings)
    """Random changes to the training images."""
    precision: Literal["float32", "mixed"] = "float32"
    """`mixed` computes in 16 bits on GPUs that support it; weights and the exported model stay in float32."""
    distribution: Literal["auto", "mirrored", "multi_worker"] = "auto"
    """Devices to train on. `mirrored`: all GPUs of this machine; `multi_worker`: the machines that TF_CONFIG lists;
    `auto`: `multi_worker` if TF_CONFIG lists several machines, otherwise `mirrored`."""
    warm_start: bool = False
    """Start from the weights of the latest blessed model, which must have the same architecture."""
    checkpoint_folder: str | None = None
    """Folder for checkpoints of interrupted training. null: beside the pipeline's artifacts. Pods need a shared
    folder."""
    checkpoint_seconds: float = Field(60.0, gt=0)
    """Seconds between two checkpoints within an epoch; there is one after every epoch too."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after this many epochs without a lower validation loss. null: train for all epochs."""
    keep_best: bool | None = None
    """Keep the weights with the lowest validation loss, of an epoch or of the start, rather than the last ones. null:
    with `linear_path` or `early_stopping_patience`, unless `weight_averaging` is set."""
    max_tiles: int = Field(10_000, ge=1)
    """With `image.tiles`: tiles to train on, and held-out tiles to validate on. If the images have more, so many are
    drawn at random."""
    cache_mb: int = Field(2048, ge=0)
    """Memory for decoded images in MB (2^20 bytes); larger sets of images are read from a temporary file."""

    @property
    def span(self) -> tuple[int, int]:
        """(`batch_size`, `epochs`), once they are known."""
        if self.batch_size is None or self.epochs is None:
            raise ValueError(
                f"trainer.batch_size {self.batch_size} or trainer.epochs {self.epochs} is null; the number of images "
                "determines them: call following_images first"
            )
        return self.batch_size, self.epochs

    @property
    def keeps_best(self) -> bool:
        """Whether the weights with the lowest validation loss become the model."""
        if self.keep_best is None:
            return not self.weight_averaging and (self.linear_path or self.early_stopping_patience is not None)
        return self.keep_best

    @model_validator(mode="after")
    def _check_closed_form(self) -> "TrainerSettings":
        family = FAMILY_SETTINGS[self.preset]
        for field in GRADIENT_DESCENT_FIELDS if family.closed_form else ():
            default = type(self).model_fields[field].get_default(call_default_factory=True)
            if getattr(self, field) != family.defaults.get(field, default):
                raise ValueError(
                    f"trainer.{field} does not apply to preset '{self.preset}', which is fitted in closed form on one "
                    "machine; remove it"
                )
        return self

    @model_validator(mode="after")
    def _check_training(self) -> "TrainerSettings":
        for field in ("early_stopping_patience", "keep_best"):
            if self.weight_averaging and getattr(self, field):
                raise ValueError(
                    f"trainer.weight_averaging and trainer.{field} cannot be combined, because epochs are compared "
                    "without the average; unset one of them"
                )
        if self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"trainer.warmup_epochs {self.warmup_epochs} must be less than trainer.epochs {self.epochs}; lower it"
            )
        return self
