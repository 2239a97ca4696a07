"""Fields that are null follow the number and the size of the images; fields that are set stay."""

import pytest

from trainer.settings.following import filters_for, following_images
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings


def followed(count, side_px=28, channels=1, **settings):
    image = ImageSettings(height_px=side_px, width_px=side_px, channels=channels)
    settings = TrainerSettings.model_validate({"preset": "residual", **settings})
    return following_images(settings, image, count)


@pytest.mark.parametrize(
    ("count", "side_px", "batch_size", "epochs", "latent_dim", "filters"),
    [
        (25, 48, 8, 200, 8, (16, 32, 32)),
        (90, 28, 8, 137, 16, (16, 32)),
        (240, 64, 8, 50, 32, (16, 32, 32)),
        (900, 28, 32, 54, 32, (16, 32)),
        (54_000, 28, 64, 5, 32, (32, 64)),  # the published presets for MNIST
        (54_000, 256, 64, 5, 128, (32, 64, 64, 64, 64)),
        (1_000_000, 4, 64, 5, 8, (32,)),
    ],
)
def test_residual_follows_the_images(count, side_px, batch_size, epochs, latent_dim, filters):
    settings = followed(count, side_px)
    assert settings.span == (batch_size, epochs)
    assert settings.latent_dim == latent_dim
    assert settings.filters == filters


def test_fields_that_are_set_stay():
    given = {"batch_size": 7, "epochs": 3, "latent_dim": 11, "filters": (4, 5)}
    assert followed(90, **given) == TrainerSettings.model_validate({"preset": "residual", **given})


@pytest.mark.parametrize("preset", ["dense", "deep", "conv", "sparse", "contractive", "denoising", "variational"])
def test_the_other_presets_follow_the_images_only_where_null(preset):
    assert followed(90, preset=preset) == TrainerSettings.model_validate({"preset": preset})
    assert followed(90, preset=preset, epochs=None, batch_size=None).span == (8, 137)


def test_training_without_a_number_of_epochs_is_an_error_that_names_the_fields():
    with pytest.raises(ValueError, match=r"trainer.batch_size None or trainer.epochs None is null"):
        _ = TrainerSettings.model_validate({"preset": "residual"}).span


def test_the_last_map_has_at_most_8_pixels_a_side():
    assert [len(filters_for((side_px, 5, 1))) for side_px in (4, 16, 17, 32, 33, 64)] == [1, 1, 2, 2, 3, 3]
