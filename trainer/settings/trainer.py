"""The `image:` and `trainer:` sections of the configuration."""

from typing import Literal

from pydantic import Field, model_validator

from runtime.settings import Section
from trainer.settings.model import ModelSettings

ScoreName = Literal[
    "error", "worst_pixels", "patch_max", "local_ssim", "weighted_error",
    "blurred_error", "cosine_distance", "latent_distance", "neighbour_distance", "ensemble",
]  # fmt: skip
Normalisation = Literal["unit", "zscore", "minmax"]


class ImageSettings(Section):
    """What every image becomes before the model sees it."""

    height_px: int = Field(8, ge=4, le=1024)
    width_px: int = Field(8, ge=4, le=1024)
    channels: Literal[1, 3] = 1
    fit: Literal["stretch", "pad"] = "stretch"
    """How an image of another shape is made to fit: stretched, or scaled whole and padded with black."""
    normalisation: Normalisation = "unit"
    """What the encoder is fed: [0, 1]; zero mean and unit variance per channel; or [0, 1] over the observed range."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height_px, self.width_px, self.channels

    @property
    def values_per_image(self) -> int:
        return self.height_px * self.width_px * self.channels


class AugmentationSettings(Section):
    """Random changes to training images, each image's own in every epoch; the target is the changed image."""

    shift_px: float = Field(0.0, ge=0)
    """Moved by up to so many pixels in each direction."""
    rotate_degrees: float = Field(0.0, ge=0, le=180)
    """Turned by up to so much either way."""
    flip_horizontal: bool = False
    """Half of the images mirrored left to right."""
    flip_vertical: bool = False
    """Half of the images mirrored top to bottom."""
    brightness: float = Field(0.0, ge=0, le=1)
    """Up to so much added to or taken from every pixel in [0, 1]."""

    @property
    def changes_nothing(self) -> bool:
        return self == AugmentationSettings()


class TrainerSettings(ModelSettings):
    """The model and how it is trained; unset fields take the preset's values."""

    batch_size: int = Field(256, ge=1)
    epochs: int = Field(5, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to 0 over all epochs."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Epochs, or parts of one, in which the learning rate rises from 0."""
    clip_norm: float | None = Field(None, gt=0)
    """Longest gradient, all weights together; a longer one is scaled down. null: any."""
    weight_averaging: float | None = Field(None, gt=0, lt=1)
    """Momentum of an exponential moving average of the weights (0.999, say), which becomes the model at the end."""
    augmentation: AugmentationSettings = AugmentationSettings()
    precision: Literal["float32", "mixed"] = "float32"
    """`mixed`: 16 bits in matrix products and convolutions where the devices have them; weights and model keep 32."""
    distribution: Literal["auto", "mirrored", "multi_worker"] = "auto"
    """All devices of this machine, or of the machines in TF_CONFIG; `auto`: whichever there are."""
    warm_start: bool = False
    """Begin with the weights of the model that was blessed last, if it has the same architecture."""
    checkpoint_folder: str | None = None
    """Where interrupted training is kept; null: beside the pipeline's artifacts. For pods, a shared folder."""
    checkpoint_seconds: float = Field(60.0, gt=0)
    """Longest work that a killed run loses; training is saved after every epoch too."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Epochs without a better validation loss before training stops; the best epoch's weights are kept."""
    cache_mb: int = Field(2048, ge=0)
    """Decoded images up to this size stay in memory; beyond it they are cached on disk."""

    @model_validator(mode="after")
    def _check_training(self) -> "TrainerSettings":
        if self.weight_averaging and self.early_stopping_patience:
            raise ValueError(
                "trainer.weight_averaging and trainer.early_stopping_patience exclude each other: the epochs are "
                "compared without the average; unset one"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"trainer.warmup_epochs {self.warmup_epochs} leaves none of the {self.epochs} epochs; lower it"
            )
        return self


class CalibrationSettings(Section):
    """The part of `evaluation:` that the Calibrator reads: what is scored, and how often it may raise a false alarm."""

    score: ScoreName = "error"
    """What the threshold is applied to."""
    score_members: tuple[ScoreName, ...] = ("error", "patch_max", "local_ssim")
    """The scores that `ensemble` averages."""
    worst_percent: float = Field(3.0, gt=0, le=100)
    """`worst_pixels`, `local_ssim`: the share of an image's pixels, its worst, that counts, in percent."""
    patch_px: int | None = Field(None, ge=1)
    """`patch_max`: the side of a patch; null: an eighth of the image's shorter side, at least 3."""
    blur_px: float | None = Field(None, ge=0)
    """The blur's standard deviation, of the scores that blur; null: a twentieth of the image's shorter side."""
    false_alarm_rate: float = Field(0.01, gt=0, lt=1)
    """Of fresh normal images at most this share raises an alarm."""

    @model_validator(mode="after")
    def _check_members(self) -> "CalibrationSettings":
        if not self.score_members or "ensemble" in self.score_members:
            raise ValueError(
                f"evaluation.score_members {list(self.score_members)}: name one or more scores, not 'ensemble' itself"
            )
        return self

    def patch_side_px(self, height_px: int, width_px: int) -> int:
        """The side of a patch in an image of that size."""
        shorter = min(height_px, width_px)
        return min(self.patch_px or max(3, round(shorter / 8)), shorter)

    def blur_deviation_px(self, height_px: int, width_px: int) -> float:
        """The blur's standard deviation in an image of that size."""
        return min(height_px, width_px) / 20 if self.blur_px is None else self.blur_px
