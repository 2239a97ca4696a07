"""Small real SavedModels that can be exported, for any family and score, without a pipeline around them."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from bench.small_models import decoded, write_small_model
from images.stored import from_pixels
from schema import features
from trainer.data.dataset import ImageSet
from trainer.families.registry import started_autoencoder
from trainer.settings.calibration import CalibrationSettings
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

SIDE_PX = 16
RATE = 0.1


def images(count: int, seed: int) -> list[bytes]:
    """PNG files of a wave in varying contrast with noise; every tenth has a bright square."""
    random = np.random.default_rng(seed)
    wave = np.sin(np.arange(SIDE_PX) / 3.0) * np.cos(np.arange(SIDE_PX)[:, None] / 2.0)
    found = []
    for number in range(count):
        levels = 110 + random.uniform(40, 70) * wave + random.normal(0, 6, wave.shape)
        if number % 10 == 9:
            levels[4:8, 9:13] = 255
        found.append(from_pixels(np.clip(np.round(levels), 0, 255).astype(np.uint8)[..., None]).encoded)
    return found


def write_examples(path: Path, contents: list[bytes]) -> str:
    """The images as a TFRecord; every tenth is an anomaly."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, content in enumerate(contents):
            texts = {features.IMAGE: content, features.IMAGE_ID: f"{number}.png".encode()}
            feature = {name: tf.train.Feature(bytes_list={"value": [value]}) for name, value in texts.items()}
            feature[features.IS_ANOMALY] = tf.train.Feature(int64_list={"value": [int(number % 10 == 9)]})
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


def write_model(
    folder: Path, *, score: Any = "error", grouped: bool = False, image: dict[str, Any] | None = None, **trainer: Any
) -> Path:
    """A model that has not been trained beyond its family's start, calibrated on 40 images.

    `image` and `trainer`: more fields of these sections.
    """
    of_image = ImageSettings(height_px=SIDE_PX, width_px=SIDE_PX, **(image or {}))
    train, held_out = (decoded(images(count, seed), of_image) for count, seed in ((60, 1), (40, 2)))
    keras.utils.set_random_seed(1)
    autoencoder = started_autoencoder(
        of_image,
        TrainerSettings.model_validate({"preset": "dense", "latent_dim": 4, "loss": "mse", **trainer}),
        ImageSet(len(train), of_image.shape, train),
        lambda values: values,
    )
    return write_small_model(
        folder,
        autoencoder,
        train,
        held_out,
        image=of_image,
        settings=CalibrationSettings(score=score, false_alarm_rate=RATE),
        groups_of_train=["ab"[row % 2] for row in range(len(train))] if grouped else (),
    )
