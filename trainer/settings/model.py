"""The part of the `trainer:` section that says which autoencoder is built and what it learns to do."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from runtime.settings import Section

Preset = Literal[
    "dense", "deep", "conv", "sparse", "denoising", "contractive", "variational", "residual", "super_resolution"
]
LossName = Literal["bce", "mse", "mae", "ssim"]

PRESET_DEFAULTS: dict[str, dict[str, Any]] = {
    # The tutorials' own models, batch sizes and losses: a preset states only what differs.
    "dense": {"latent_dim": 32, "loss": "bce", "batch_size": 128},
    "deep": {"latent_dim": 32, "hidden_units": (128,), "loss": "bce", "batch_size": 128},
    "conv": {"latent_dim": None, "filters": (16, 8, 4), "loss": "bce", "batch_size": 128},
    "sparse": {"latent_dim": 32, "sparsity": {}, "loss": "bce", "batch_size": 128},
    "denoising": {"latent_dim": 32, "corruption": {}, "loss": "mse", "batch_size": 64},
    "contractive": {"latent_dim": 32, "hidden_units": (512,), "contraction": 0.1, "loss": "bce", "batch_size": 128},
    "variational": {"latent_dim": 32, "beta": 1.0, "loss": "bce", "batch_size": 64},
    "residual": {"latent_dim": 32, "loss": "mse", "batch_size": 64},
    "super_resolution": {"latent_dim": 32, "downscale": 2, "loss": "mse", "batch_size": 64},
}

_ANY_BODY = ("denoising", "variational", "super_resolution")
MEANINGFUL: dict[str, tuple[str, ...]] = {
    "hidden_units": ("deep", "contractive", *_ANY_BODY),
    "filters": ("conv", "residual", *_ANY_BODY),
    "sparsity": ("sparse",),
    "corruption": ("denoising",),
    "contraction": ("contractive",),
    "beta": ("variational",),
    "downscale": ("super_resolution",),
}
"""The presets for which a field means something; fields that are not named here mean something for all."""


class SparsitySettings(Section):
    """How few latent numbers of an image are active."""

    kind: Literal["l1", "kl"] = "l1"
    """`l1`: a rectified latent with a price on its sum. `kl`: a sigmoid latent whose mean activity is `target`."""
    weight: float = Field(0.5, ge=0)
    """Beside a reconstruction loss that is summed over pixels, as in the papers."""
    target: float = Field(0.05, gt=0, lt=1)
    """With `kl`: the share of images for which a unit is active."""


class CorruptionSettings(Section):
    """What is done to the encoder's input in training."""

    kind: Literal["gaussian", "masking", "salt_and_pepper", "patches"] = "masking"
    amount: float = Field(0.3, gt=0, le=1)
    """Gaussian: standard deviation in the encoder's units; the others: share of the pixels, or of the blocks."""


def _weights_by_name(loss: Any) -> Any:
    return {loss: 1.0} if isinstance(loss, str) else loss


class ModelSettings(Section):
    """The model and its loss; unset fields take the preset's values."""

    preset: Preset = "deep"
    latent_dim: int | None = Field(None, ge=1)
    """Numbers in the bottleneck; null with `conv`: the smallest feature map itself is the latent."""
    hidden_units: tuple[int, ...] = ()
    """Fully connected layers between image and latent, mirrored in the decoder."""
    filters: tuple[int, ...] = ()
    """Filters of `conv`, each but the last followed by a 2x2 pooling. Otherwise those of the residual network's
    stages, each at half the size of the one before; empty: as many as the image's size asks for."""
    loss: Annotated[dict[LossName, PositiveFloat], BeforeValidator(_weights_by_name)] = Field(
        {"bce": 1.0}, min_length=1
    )
    """`mse`, or a weighted sum: `{mse: 0.8, ssim: 0.2}`."""
    sparsity: SparsitySettings | None = None
    corruption: CorruptionSettings | None = None
    contraction: float = Field(0.0, ge=0)
    """Weight of the encoder's squared Jacobian norm, beside a reconstruction loss that is summed over pixels."""
    beta: float = Field(0.0, ge=0)
    """Weight of the latent's divergence from N(0, I), likewise."""
    downscale: int = Field(1, ge=1, le=16)
    """How many times smaller, along each side, the image is that the encoder sees."""

    @property
    def latent_size(self) -> int:
        """`latent_dim` where the preset requires one."""
        if self.latent_dim is None:
            raise ValueError(f"trainer.latent_dim is required for preset '{self.preset}'")
        return self.latent_dim

    @property
    def has_convolutions(self) -> bool:
        """Whether any layer of the model or of its loss is one."""
        return "ssim" in self.loss or (self.preset in MEANINGFUL["filters"] and not self.hidden_units)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {**PRESET_DEFAULTS.get(values.get("preset", "deep"), {}), **values}

    @model_validator(mode="after")
    def _check_preset(self) -> "ModelSettings":
        for field, presets in MEANINGFUL.items():
            if self.preset not in presets and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(
                    f"trainer.{field} has no meaning for preset '{self.preset}'; use {_alternatives(presets)}"
                )
        if self.preset != "conv" and self.latent_dim is None:
            raise ValueError(f"trainer.latent_dim is required for preset '{self.preset}'")
        if self.preset == "deep" and not self.hidden_units:
            raise ValueError(
                "trainer.hidden_units needs at least one layer for preset 'deep'; without any, use 'dense'"
            )
        if self.preset == "conv" and len(self.filters) < 2:
            raise ValueError("trainer.filters needs at least two layers for preset 'conv'")
        if self.hidden_units and self.filters:
            raise ValueError(
                f"trainer.hidden_units {list(self.hidden_units)} and trainer.filters {list(self.filters)} exclude each "
                "other: the first makes a fully connected network, the second a convolutional one; leave one out"
            )
        return self


def _alternatives(presets: tuple[str, ...]) -> str:
    names = [f"'{preset}'" for preset in presets]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
