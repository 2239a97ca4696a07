"""The `image:` and `trainer:` sections of the configuration."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trainer.model_settings import ModelSettings

Normalisation = Literal["unit", "zscore", "minmax"]


class ImageSettings(BaseModel):
    """What every image becomes before the model sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class TrainerSettings(ModelSettings):
    """The model and how it is trained; unset fields take the preset's values."""

    batch_size: int = Field(256, ge=1)
    epochs: int = Field(5, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    early_stopping_patience: int | None = Field(None, ge=1)
    """Epochs without a better validation loss before training stops; the best epoch's weights are kept."""
    cache_mb: int = Field(2048, ge=0)
    """Decoded images up to this size stay in memory; beyond it they are cached on disk."""
