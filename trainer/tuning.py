"""TFX Tuner's entry point: random search over fields of the `trainer:` section (Bergstra & Bengio 2012, JMLR 13)."""

import json
import logging
from typing import Any

import keras_tuner
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainer.data.dataset import ImageSet, PixelConstants
from trainer.families.registry import has_closed_form, started_autoencoder
from trainer.fitting.arguments import loaded_splits, settings_of
from trainer.fitting.tracing import keep_autograph_out
from trainer.fitting.training_loop import errors_of, train_autoencoder
from trainer.settings.image import ImageSettings
from trainer.settings.tuner import Range, TunerSettings

_OBJECTIVE = "val_error"
"""Mean squared error on held-out images: comparable between trials, unlike the losses."""
_LOG = logging.getLogger(__name__)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Search with the settings in `custom_config`, whose keys are image, trainer, tuner and seed."""
    keep_autograph_out()
    settings = TunerSettings.model_validate(fn_args.custom_config["tuner"])
    fn_args.transform_output = fn_args.transform_graph_path
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective(_OBJECTIVE, "min"),
        max_trials=settings.trials,
        seed=fn_args.custom_config["seed"],
        hyperparameters=hyperparameters(settings),
    )
    tuner = AutoencoderTuner(oracle, directory=fn_args.working_dir, project_name="search", overwrite=True)
    return TunerFnResult(tuner=tuner, fit_kwargs={"fn_args": fn_args, "epochs": settings.epochs})


def hyperparameters(settings: TunerSettings) -> keras_tuner.HyperParameters:
    """The search space in KerasTuner's terms, where a list is a JSON string."""
    space = keras_tuner.HyperParameters()
    for name, choice in settings.search_space.items():
        if isinstance(choice, Range):
            whole = isinstance(choice.min, int) and isinstance(choice.max, int)
            sampling = "log" if choice.log else "linear"
            (space.Int if whole else space.Float)(name, choice.min, choice.max, sampling=sampling)
        else:
            space.Choice(name, [json.dumps(value) if isinstance(value, list) else value for value in choice])
    return space


class AutoencoderTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs our own training for each trial, so that it does not matter which version of Keras KerasTuner uses."""

    def search(self, fn_args: FnArgs, epochs: int | None) -> None:
        with loaded_splits(fn_args) as (train, held_out, constants):
            super().search(fn_args, epochs, train, held_out, constants)

    def run_trial(
        self,
        trial: Any,
        fn_args: FnArgs,
        epochs: int | None,
        train: ImageSet,
        held_out: ImageSet,
        constants: PixelConstants,
    ) -> dict[str, float]:
        fn_args.hyperparameters = trial.hyperparameters.get_config()
        settings = settings_of(fn_args)
        settings = settings.model_copy(update={"epochs": epochs or settings.epochs})
        config = fn_args.custom_config
        keras.backend.clear_session()
        keras.utils.set_random_seed(config["seed"])
        image = ImageSettings.model_validate(config["image"])
        autoencoder = started_autoencoder(image, settings, train, constants.to_pixels)
        if has_closed_form(settings):
            history = errors_of(autoencoder, train, held_out, constants)
        else:
            history = train_autoencoder(autoencoder, train, held_out, constants, settings, seed=config["seed"])
        error = min(history[_OBJECTIVE])
        _LOG.info(
            "trial %s: %s has an error of %.5g",
            *(trial.trial_id, trial.hyperparameters.values, error),
            extra={"done": int(trial.trial_id) + 1, "total": self.oracle.max_trials, "unit": "trials"},
        )
        return {_OBJECTIVE: error}
