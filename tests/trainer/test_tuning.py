"""The Tuner chooses from the configured search space, and the Trainer gets its choices as settings."""

import pytest
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer.fitting.arguments import settings_of
from trainer.settings.tuner import TunerSettings
from trainer.tuning import hyperparameters

SPACE = {
    "hidden_units": [[64], [64, 32]],
    "latent_dim": {"min": 2, "max": 4},
    "learning_rate": {"min": 0.001, "max": 0.1, "log": True},
    "loss": ["mse", "bce"],
}


def test_every_choice_is_in_the_search_space_and_gives_valid_settings():
    tuner = TunerSettings.model_validate({"enabled": True, "search_space": SPACE})
    space = hyperparameters(tuner)
    seen = set()
    for seed in range(40):
        for dimension in space.space:
            space.values[dimension.name] = dimension.random_sample(seed)
        fn_args = FnArgs(custom_config={"trainer": {"preset": "deep"}, "image": {}}, hyperparameters=space.get_config())
        settings = settings_of(fn_args)
        assert settings.hidden_units in {(64,), (64, 32)}
        assert settings.latent_dim in {2, 3, 4}
        assert 0.001 <= settings.learning_rate <= 0.1
        assert settings.loss in ({"mse": 1.0}, {"bce": 1.0})
        seen.add((settings.hidden_units, settings.latent_dim))
    assert len(seen) > 3


def test_settings_are_unchanged_without_a_tuner():
    assert (
        settings_of(FnArgs(custom_config={"trainer": {"preset": "dense", "latent_dim": 5}, "image": {}})).latent_dim
        == 5
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"enabled": True}, "search_space is empty"),
        ({"search_space": {"laten_dim": [1]}}, "no field 'laten_dim'; did you mean 'latent_dim'"),
        ({"search_space": {"latent_dim": []}}, "search_space.latent_dim is empty; give values, or a range {min, max}"),
        ({"search_space": {"latent_dim": {"min": 4, "max": 2}}}, "min must be below max"),
        ({"search_space": {"learning_rate": {"min": 0, "max": 2, "log": True}}}, "above 0 with log: true"),
    ],
)
def test_an_invalid_search_space_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TunerSettings.model_validate(values)
