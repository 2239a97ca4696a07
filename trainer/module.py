"""TFX Trainer's entry point: trains, then exports the model for calibration and the controls for the gate."""

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from runtime.tfrecords import as_many_as_fit
from schema.artifacts import PICTURE_FILE
from trainer.data.unseen_maps import of_whole_images
from trainer.export.controls import export_controls
from trainer.export.projector import write_projector
from trainer.export.trained_model import TrainedModel, export_trained
from trainer.families.registry import build_autoencoder
from trainer.fitting.arguments import loaded_splits, settings_of, training_folder
from trainer.fitting.callbacks import PICTURES, originals_over_reconstructions, write_picture
from trainer.fitting.checkpoint import remove_checkpoint
from trainer.fitting.distribution import on_several_machines
from trainer.fitting.fit import fit, trains_on_held_out
from trainer.fitting.latent_use import warn_if_unused
from trainer.fitting.several_machines import fit_on_several_machines
from trainer.fitting.tracing import keep_autograph_out
from trainer.settings.image import ImageSettings

_EXAMINED = 1000
"""Training images whose latents are examined, if they fit into memory."""


def run_fn(fn_args: FnArgs) -> None:
    """Train with the settings in `custom_config`, whose keys are name, image, trainer, seed and the fingerprints."""
    keep_autograph_out()
    config = fn_args.custom_config
    image = ImageSettings.model_validate(config["image"])
    settings = settings_of(fn_args)
    if on_several_machines(settings):
        fit_on_several_machines(fn_args)
    transform = tft.TFTransformOutput(fn_args.transform_output)

    with loaded_splits(fn_args) as (train, held_out, constants):
        keras.utils.set_random_seed(config["seed"] + 1)
        untrained = build_autoencoder(image, settings)
        autoencoder, history = fit(fn_args, train, held_out, constants)
        warn_if_unused(autoencoder, train.sample(as_many_as_fit(train.shape, at_most=_EXAMINED)))

        shared = {
            "transform_layer": transform.transform_features_layer(),
            "constants": constants,
            "mean_image": np.asarray(constants.to_pixels(train.mean_image())),
        }
        export_controls(
            fn_args.model_run_dir,
            untrained=untrained,
            train=train,
            latent_dim=autoencoder.latent_dim,
            image=image,
            **shared,
        )
        record = {
            **config,
            "trainer": settings.model_dump(mode="json"),  # with the values that the Tuner chose
            "tensorflow": tf.__version__,
            "pixel_levels": list(constants.levels),
            "latent_dim": image.tile_count * autoencoder.latent_dim,
            "parameters": autoencoder.model.count_params(),
            "history": history,
            "cross_fitted": trains_on_held_out(settings, train, held_out),
        }
        unseen_maps = None
        if autoencoder.feature_errors is not None:
            record["backbone"] = autoencoder.feature_errors.maps.backbone.record
            learnt = train.joined(held_out) if record["cross_fitted"] else train
            unseen_maps = of_whole_images(autoencoder.feature_errors.unseen_maps, learnt, constants, image)
        trained = TrainedModel(autoencoder, image=image, unseen_maps=unseen_maps, **shared)
        export_trained(trained, fn_args.serving_model_dir, record=record)
        grid = originals_over_reconstructions(autoencoder, held_out.sample(PICTURES), constants)
        write_picture(grid, image.network_shape[0], f"{fn_args.model_run_dir}/{PICTURE_FILE}")
        write_projector(f"{fn_args.model_run_dir}/projector", autoencoder, held_out, constants, fn_args.eval_files)
    remove_checkpoint(training_folder(fn_args))
