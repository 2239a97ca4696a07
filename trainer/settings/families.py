"""The model families as the configuration knows them: their defaults and the fields that each accepts.

`trainer.families.registry` adds the networks, which need TensorFlow; this module must stay light, because the
configuration is read before anything heavy is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schema.changes import CHANGES


@dataclass(frozen=True)
class FamilySettings:
    """The part of a family that the `trainer:` section is checked against."""

    name: str
    """Value of `trainer.preset`."""
    defaults: Mapping[str, Any]
    """Fields of `trainer:` for which the family has defaults of its own."""
    fields: frozenset[str] = frozenset()
    """Fields that the family uses although not every family does."""
    minimum_layers: tuple[str, int] | None = None
    """A field that lists layers, and how many it must list at least."""
    needs_latent_dim: bool = True
    """Whether `latent_dim` may not be null."""
    follows_images: bool = False
    """Whether `latent_dim` and `filters`, unless set, follow the number and the size of the images."""
    closed_form: bool = False
    """Whether the family is fitted in closed form, so that nothing about gradient descent applies."""


_LAYERS = frozenset({"hidden_units", "filters"})
_FAMILIES = (
    # Batch sizes and losses are those of the tutorials and papers.
    FamilySettings("dense", {"latent_dim": 32, "loss": "bce", "batch_size": 128}, fields=frozenset({"linear_path"})),
    FamilySettings(
        "deep",
        {"latent_dim": 32, "hidden_units": (128,), "loss": "bce", "batch_size": 128},
        fields=frozenset({"hidden_units", "linear_path"}),
        minimum_layers=("hidden_units", 1),
    ),
    FamilySettings(
        "conv",
        {"latent_dim": None, "filters": (16, 8, 4), "loss": "bce", "batch_size": 128},
        fields=frozenset({"filters"}),
        minimum_layers=("filters", 2),
        needs_latent_dim=False,
    ),
    FamilySettings(
        "sparse",
        {"latent_dim": 32, "sparsity": {}, "loss": "bce", "batch_size": 128},
        fields=frozenset({"sparsity"}),
    ),
    FamilySettings(
        "denoising",
        {"latent_dim": 32, "corruption": {}, "loss": "mse", "batch_size": 64},
        fields=_LAYERS | {"corruption", "linear_path"},
    ),
    FamilySettings(
        "contractive",
        {"latent_dim": 32, "hidden_units": (512,), "contraction": 0.1, "loss": "bce", "batch_size": 128},
        fields=frozenset({"hidden_units", "contraction"}),
    ),
    FamilySettings(
        "variational",
        {"latent_dim": 32, "beta": 1.0, "loss": "bce", "batch_size": 64},
        fields=_LAYERS | {"beta"},
    ),
    FamilySettings(
        "residual",
        {"latent_dim": None, "linear_path": True, "loss": "mse", "batch_size": None, "epochs": None},
        fields=frozenset({"filters", "linear_path"}),
        follows_images=True,
    ),
    FamilySettings(
        "features",
        {"latent_dim": 32, "loss": "mse", "steady_against": CHANGES, "batch_size": None, "epochs": None},
        fields=frozenset({"backbone", "backbone_layers", "steady_against"}),
        closed_form=True,
    ),
    FamilySettings(
        "super_resolution",
        {"latent_dim": 32, "downscale": 2, "loss": "mse", "batch_size": 64},
        fields=_LAYERS | {"downscale"},
    ),
)

FAMILY_SETTINGS: Mapping[str, FamilySettings] = {family.name: family for family in _FAMILIES}
"""By name, in the order in which documentation and comparisons list them."""
FAMILY_FIELDS = frozenset().union(*(family.fields for family in _FAMILIES))
"""Fields of `trainer:` that only some families use."""
PRESET_FIELDS = FAMILY_FIELDS | {"preset", "loss"}
"""Fields that each family takes from its own preset when families are compared."""


def families_that_use(field: str) -> tuple[str, ...]:
    """Names of the families that use one of FAMILY_FIELDS."""
    return tuple(family.name for family in _FAMILIES if field in family.fields)
