"""Each family accepts its own fields and has its own defaults."""

import subprocess
import sys

import pytest

from trainer.settings.families import FAMILY_FIELDS, FAMILY_SETTINGS
from trainer.settings.trainer import TrainerSettings

ACCEPTED = {
    "hidden_units": {"deep", "denoising", "contractive", "variational", "super_resolution"},
    "linear_path": {"dense", "deep", "denoising", "residual"},
    "filters": {"conv", "residual", "denoising", "variational", "super_resolution"},
    "sparsity": {"sparse"},
    "corruption": {"denoising"},
    "contraction": {"contractive"},
    "beta": {"variational"},
    "downscale": {"super_resolution"},
    "backbone": {"features"},
    "backbone_layers": {"features"},
    "steady_against": {"features"},
}
VALUES = {"linear_path": True, "hidden_units": [9], "filters": [4, 4], "sparsity": {}, "corruption": {}}
VALUES |= {"backbone": "MobileNetV2", "backbone_layers": ["block2"], "steady_against": ["light"]}


@pytest.mark.parametrize("preset", FAMILY_SETTINGS)
@pytest.mark.parametrize("field", ACCEPTED)
def test_a_family_accepts_its_own_fields_only(preset, field):
    settings = {"preset": preset, field: VALUES.get(field, 3)}
    if preset in ACCEPTED[field]:
        TrainerSettings.model_validate(settings)
    else:
        with pytest.raises(ValueError, match=f"trainer.{field} does not apply to preset '{preset}'; remove it, or use"):
            TrainerSettings.model_validate(settings)


def test_every_other_field_applies_to_all_families():
    assert set(ACCEPTED) == FAMILY_FIELDS


@pytest.mark.parametrize("preset", FAMILY_SETTINGS)
def test_defaults_of_a_family_are_valid_and_can_be_overridden(preset):
    assert TrainerSettings.model_validate({"preset": preset}).batch_size in (
        (None,) if preset in ("residual", "features") else (64, 128)
    )
    assert TrainerSettings.model_validate({"preset": preset, "latent_dim": 7}).latent_dim == 7


def test_a_family_in_closed_form_refuses_what_only_gradient_descent_uses():
    with pytest.raises(
        ValueError, match="trainer.epochs does not apply to preset 'features'.* closed form .*remove it"
    ):
        TrainerSettings.model_validate({"preset": "features", "epochs": 7})
    with pytest.raises(ValueError, match="trainer.warm_start does not apply to preset 'features'"):
        TrainerSettings.model_validate({"preset": "features", "warm_start": True})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "dense", "latent_dim": None}, "latent_dim is null, but preset 'dense' needs it"),
        ({"preset": "deep", "hidden_units": []}, r"hidden_units \[\] is too short for preset 'deep'; .* 1 layer,"),
        ({"preset": "conv", "filters": [4]}, r"filters \[4\] is too short for preset 'conv'; .* 2 layers,"),
        ({"preset": "variational", "hidden_units": [4], "filters": [4]}, "cannot be combined"),
    ],
)
def test_impossible_networks_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainerSettings.model_validate(settings)


def test_settings_do_not_load_tensorflow():
    code = (
        "import sys, trainer.settings.trainer, trainer.settings.tuner, trainer.settings.image, "
        "trainer.settings.calibration, schema.calibration_record; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
