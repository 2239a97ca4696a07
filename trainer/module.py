"""TFX Trainer's entry point: train, calibrate, export the model and the controls that the gate needs."""

import tempfile
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from schema.artifacts import PICTURE_FILE
from trainer.calibration import check_image_count, conformal_threshold
from trainer.callbacks import PICTURES, originals_over_reconstructions, write_picture
from trainer.controls import export_controls
from trainer.dataset import Images, ImageSet, PixelConstants, load_images, parse_encoded, pixel_constants
from trainer.losses import error_per_image
from trainer.models import Autoencoder, build_autoencoder
from trainer.settings import ImageSettings, TrainerSettings
from trainer.signatures import ServedModel, export_served
from trainer.tracing import keep_autograph_out_of_keras
from trainer.training import train_autoencoder


def run_fn(fn_args: FnArgs) -> None:
    """Train as `custom_config` says: its keys are image, trainer, seed, false_alarm_rate and fingerprints."""
    keep_autograph_out_of_keras()
    config = fn_args.custom_config
    image = ImageSettings.model_validate(config["image"])
    settings = TrainerSettings.model_validate(config["trainer"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    constants = pixel_constants(fn_args.train_files, transform)

    with tempfile.TemporaryDirectory() as cache:
        train = load_images(fn_args.train_files, transform, cache_mb=settings.cache_mb, cache_path=f"{cache}/train")
        held_out = load_images(fn_args.eval_files, transform, cache_mb=settings.cache_mb, cache_path=f"{cache}/eval")
        check_image_count(held_out.count, config["false_alarm_rate"])

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
        errors = errors_of(autoencoder, held_out, constants)
        threshold = conformal_threshold(errors, config["false_alarm_rate"])

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
            **shared,
        )
        record = {
            **config,
            "tensorflow": tf.__version__,
            "latent_dim": autoencoder.latent_dim,
            "parameters": autoencoder.model.count_params(),
            "calibration": {
                "threshold": threshold,
                "false_alarm_rate": config["false_alarm_rate"],
                "images": held_out.count,
            },
            "history": history,
        }
        model = ServedModel(autoencoder, threshold=threshold, **shared)
        export_served(model, fn_args.serving_model_dir, record=record, warmup_image=_first_encoded(fn_args.eval_files))
        grid = originals_over_reconstructions(autoencoder, held_out.sample(PICTURES), constants)
        write_picture(grid, image.height_px, f"{fn_args.model_run_dir}/{PICTURE_FILE}")


def errors_of(autoencoder: Autoencoder, images: ImageSet, constants: PixelConstants) -> Images:
    """The error of each image, in file order: [N] float32."""

    @tf.function(autograph=False)
    def errors(normalised: tf.Tensor) -> tf.Tensor:
        return error_per_image(constants.to_pixels(normalised), autoencoder.model(normalised))

    return np.concatenate([errors(batch).numpy() for batch in images.iterate()])


def _mean_image(train: ImageSet, constants: PixelConstants) -> Images:
    """[H, W, C] in [0, 1], accumulated in double precision."""
    total: Any = sum(batch.sum(axis=0, dtype=np.float64) for batch in train.iterate())
    mean: Images = np.asarray(constants.to_pixels((total / train.count).astype(np.float32)))
    return mean


def _first_encoded(patterns: list[str]) -> bytes:
    files = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    encoded: bytes = parse_encoded(next(iter(tf.data.TFRecordDataset(files).batch(1)))).numpy()[0]
    return encoded
