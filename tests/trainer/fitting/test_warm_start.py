"""A warm start copies the earlier model's weights or explains why it cannot."""

import numpy as np
import pytest
import tensorflow as tf
from training_run import SETTINGS, plain_autoencoder

from trainer.families.registry import build_autoencoder
from trainer.fitting.warm_start import ArchitectureError, take_weights
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings


class Exported(tf.Module):
    """Like the served model, which contains the trained one."""

    def __init__(self, weights):
        super().__init__()
        self.trained = tf.Module()
        self.trained.weights = weights


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """(weights, folder of the Model artifact)."""
    folder = tmp_path_factory.mktemp("model")
    model = plain_autoencoder().model
    tf.saved_model.save(Exported(model.variables), str(folder / "Format-Serving"))
    return model.get_weights(), str(folder)


def test_a_warm_start_copies_the_weights_of_the_earlier_model(earlier):
    model = plain_autoencoder().model
    assert not np.array_equal(model.get_weights()[0], earlier[0][0])
    take_weights(model, earlier[1])
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(model.get_weights(), earlier[0], strict=True))


def test_another_architecture_is_an_error_that_names_the_shapes(earlier):
    settings = TrainerSettings.model_validate({**SETTINGS, "latent_dim": 5})
    model = build_autoencoder(ImageSettings(height_px=4, width_px=4), settings).model
    with pytest.raises(ArchitectureError, match="16x3, .*16x5, .*latent_dim"):
        take_weights(model, earlier[1])


def test_without_an_earlier_model_the_weights_stay_random(caplog):
    model = plain_autoencoder().model
    before = model.get_weights()
    take_weights(model, None)
    assert "there is no blessed model yet" in caplog.text
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
