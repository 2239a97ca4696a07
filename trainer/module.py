"""TFX Trainer's entry point: train, export the model to be calibrated and the controls that the gate needs."""

import tempfile
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from schema.artifacts import PICTURE_FILE
from trainer.callbacks import PICTURES, originals_over_reconstructions, write_picture
from trainer.controls import export_controls
from trainer.dataset import Images, ImageSet, PixelConstants, load_images, pixel_constants
from trainer.models import build_autoencoder
from trainer.settings import ImageSettings, TrainerSettings
from trainer.tracing import keep_autograph_out_of_keras
from trainer.trained_model import TrainedModel, export_trained
from trainer.training import train_autoencoder


def run_fn(fn_args: FnArgs) -> None:
    """Train as `custom_config` says: its keys are name, image, trainer, seed and fingerprints."""
    keep_autograph_out_of_keras()
    config = fn_args.custom_config
    image = ImageSettings.model_validate(config["image"])
    settings = TrainerSettings.model_validate(config["trainer"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    constants = pixel_constants(fn_args.train_files, transform)

    with tempfile.TemporaryDirectory() as cache:
        train = load_images(fn_args.train_files, transform, cache_mb=settings.cache_mb, cache_path=f"{cache}/train")
        held_out = load_images(fn_args.eval_files, transform, cache_mb=settings.cache_mb, cache_path=f"{cache}/eval")

        keras.utils.set_random_seed(config["seed"] + 1)
        untrained = build_autoencoder(image, settings)
        keras.utils.set_random_seed(config["seed"])
        autoencoder = build_autoencoder(image, settings)
        history = train_autoencoder(
            autoencoder,
            train,
            held_out,
            constants,
            settings,
            seed=config["seed"],
            log_dir=fn_args.model_run_dir,
        )

        shared = {
            "transform_layer": transform.transform_features_layer(),
            "constants": constants,
            "mean_image": _mean_image(train, constants),
        }
        export_controls(
            fn_args.model_run_dir,
            untrained=untrained,
            train=train,
            latent_dim=autoencoder.latent_dim,
            image=image,
            held_out_count=held_out.count,
            **shared,
        )
        record = {
            **config,
            "tensorflow": tf.__version__,
            "latent_dim": autoencoder.latent_dim,
            "parameters": autoencoder.model.count_params(),
            "history": history,
        }
        export_trained(TrainedModel(autoencoder, **shared), fn_args.serving_model_dir, record=record)
        grid = originals_over_reconstructions(autoencoder, held_out.sample(PICTURES), constants)
        write_picture(grid, image.height_px, f"{fn_args.model_run_dir}/{PICTURE_FILE}")


def _mean_image(train: ImageSet, constants: PixelConstants) -> Images:
    """[H, W, C] in [0, 1], accumulated in double precision."""
    total: Any = sum(batch.sum(axis=0, dtype=np.float64) for batch in train.iterate())
    mean: Images = np.asarray(constants.to_pixels((total / train.count).astype(np.float32)))
    return mean
