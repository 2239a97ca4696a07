"""The part of the `trainer:` section that describes the model and its loss."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from runtime.settings import Section
from schema.changes import ChangeName
from trainer.settings.families import FAMILY_FIELDS, FAMILY_SETTINGS, families_that_use

if TYPE_CHECKING:
    Preset = str
else:
    Preset = Literal[tuple(FAMILY_SETTINGS)]
LossName = Literal["bce", "mse", "mae", "ssim"]


class SparsitySettings(Section):
    """Sparsity of the latent."""

    kind: Literal["l1", "kl"] = "l1"
    """`l1` penalises the sum of a rectified latent; `kl` pulls the mean activity of a sigmoid latent towards
    `target`."""
    weight: float = Field(0.5, ge=0)
    """Weight of the penalty relative to a reconstruction loss summed over an image's values, as in the papers."""
    target: float = Field(0.05, gt=0, lt=1)
    """For `kl`: mean activity that each latent number should have."""


class CorruptionSettings(Section):
    """Corruption applied to the encoder's input during training."""

    kind: Literal["gaussian", "masking", "salt_and_pepper", "patches"] = "masking"
    """`gaussian` adds noise, `masking` sets pixels to 0, `salt_and_pepper` sets pixels to the lowest or highest value,
    `patches` replaces square blocks by those of another image."""
    amount: float = Field(0.3, gt=0, le=1)
    """For `gaussian`: standard deviation of the noise in the encoder's units; otherwise: share of the pixels or blocks
    to corrupt."""


def _weights_by_name(loss: Any) -> Any:
    return {loss: 1.0} if isinstance(loss, str) else loss


class ModelSettings(Section):
    """The model and its loss. Fields that are not set take the preset's values."""

    preset: Preset = "deep"
    """Model family, with defaults for the fields below; docs/models/ describes each."""
    latent_dim: int | None = Field(None, ge=1)
    """Numbers in the latent. null, for `conv`: the smallest feature map is the latent; for `residual`: the number and
    the size of the images determine it; other presets need a number."""
    hidden_units: tuple[int, ...] = ()
    """Units of each fully connected layer between image and latent, mirrored in the decoder."""
    filters: tuple[int, ...] = ()
    """For `conv`: filters of each layer; a 2x2 pooling follows every layer but the last. For other presets: filters of
    each residual stage, which halves the image; if empty, the image's size determines them, and for `residual` also the
    number of images."""
    linear_path: bool = False
    """Add a linear path into and out of the latent, which starts as the training images' principal components and keeps
    training, while the network learns what they leave over."""
    loss: Annotated[dict[LossName, PositiveFloat], BeforeValidator(_weights_by_name)] = Field(
        {"bce": 1.0}, min_length=1
    )
    """Reconstruction loss: a name such as `mse`, or a weighted sum such as `{mse: 0.8, ssim: 0.2}`."""
    sparsity: SparsitySettings | None = None
    """For `sparse`: the penalty on active latent numbers."""
    corruption: CorruptionSettings | None = None
    """For `denoising`: the corruption of the encoder's input."""
    contraction: float = Field(0.0, ge=0)
    """For `contractive`: weight of the squared norm of the encoder's Jacobian, relative to a reconstruction loss summed
    over an image's values."""
    beta: float = Field(0.0, ge=0)
    """For `variational`: weight of the latent's divergence from N(0, I), relative to a reconstruction loss summed over
    an image's values."""
    downscale: int = Field(1, ge=1, le=16)
    """For `super_resolution`: factor by which the encoder's input is smaller than the image, along each side."""

    backbone: str = "efficientnet-lite0"
    """For `features`: the frozen network whose feature maps are reconstructed. `efficientnet-lite0`, `-lite1` or
    `-lite2`, a network of Keras Applications such as `MobileNetV2`, or the path of a `.keras` file or a SavedModel."""
    backbone_layers: tuple[str, ...] = ()
    """For `features`: layers of the backbone whose maps are joined; if empty, the last at each of strides 4, 8, 16."""
    steady_against: tuple[ChangeName, ...] = ()
    """For `features`: harmless changes that the model learns to ignore, from changed copies of the training images."""

    @property
    def latent_size(self) -> int:
        """`latent_dim` of a family that needs one."""
        if self.latent_dim is None:
            raise ValueError(f"trainer.latent_dim is null, but preset '{self.preset}' needs it; set it")
        return self.latent_dim

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        name = values.get("preset", "deep")
        family = FAMILY_SETTINGS.get(name) if isinstance(name, str) else None
        return {**family.defaults, **values} if family else values

    @model_validator(mode="after")
    def _check_family(self) -> "ModelSettings":
        family = FAMILY_SETTINGS[self.preset]
        for field in sorted(FAMILY_FIELDS - family.fields):
            if getattr(self, field) != type(self).model_fields[field].get_default(call_default_factory=True):
                raise ValueError(
                    f"trainer.{field} does not apply to preset '{self.preset}'; remove it, or use preset "
                    f"{_alternatives(families_that_use(field))}"
                )
        if family.needs_latent_dim and not family.follows_images and self.latent_dim is None:
            raise ValueError(f"trainer.latent_dim is null, but preset '{self.preset}' needs it; set it")
        if family.minimum_layers:
            field, least = family.minimum_layers
            if len(getattr(self, field)) < least:
                raise ValueError(
                    f"trainer.{field} {list(getattr(self, field))} is too short for preset '{self.preset}'; list at "
                    f"least {least} layer{'s' if least > 1 else ''}, or use another preset"
                )
        if self.hidden_units and self.filters:
            raise ValueError(
                f"trainer.hidden_units {list(self.hidden_units)} and trainer.filters {list(self.filters)} cannot be "
                "combined: the first makes a fully connected network, the second a convolutional one; remove one"
            )
        return self


def _alternatives(presets: tuple[str, ...]) -> str:
    names = [f"'{preset}'" for preset in presets]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
