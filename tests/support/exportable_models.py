"""Small real SavedModels that can be exported, for any family and score, without a pipeline around them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from images.stored import from_pixels
from schema import features
from schema.calibration_record import CalibrationRecord
from schema.features import NORMALISED
from trainer.data.dataset import ImageSet, PixelConstants
from trainer.export.signatures import ServedModel, export_served
from trainer.export.trained_model import TrainedModel, write_record
from trainer.families.registry import started_autoencoder
from trainer.preprocessing import decode_images
from trainer.scoring.calibration import limits_of
from trainer.scoring.groups import GroupedScore, Groups, limits_in_units, records_of
from trainer.scoring.scores import fit_score
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
    return _written(
        folder, ImageSettings(height_px=SIDE_PX, width_px=SIDE_PX, **(image or {})), score, grouped, trainer
    )


def _written(folder: Path, image: ImageSettings, score: Any, grouped: bool, trainer: dict[str, Any]) -> Path:
    settings = CalibrationSettings(score=score, false_alarm_rate=RATE)
    train, held_out = (
        decode_images(tf.constant(images(count, seed)), image).numpy() for count, seed in ((60, 1), (40, 2))
    )
    keras.utils.set_random_seed(1)
    autoencoder = started_autoencoder(
        image,
        TrainerSettings.model_validate({"preset": "dense", "latent_dim": 4, "loss": "mse", **trainer}),
        ImageSet(len(train), image.shape, train),
        lambda values: values,
    )
    trained = TrainedModel(
        autoencoder,
        transform_layer=lambda encoded: {NORMALISED: decode_images(encoded[features.IMAGE], image)},
        constants=PixelConstants(np.zeros(image.channels, np.float32), np.ones(image.channels, np.float32)),
        mean_image=train.mean(axis=0),
        image=image,
    )
    outputs = trained.autoencode(train)
    fitted = fit_score(score, settings, lambda: iter([(train, outputs)]))
    of_held_out = trained.autoencode(held_out)
    scores = fitted(held_out, of_held_out).numpy()
    peaks = fitted.anomaly_map(held_out, of_held_out).numpy().max(axis=(1, 2))
    limits, records, number = limits_of(settings, scores, peaks), (), np.zeros(len(scores), np.int64)
    if grouped:
        groups = Groups(outputs["latent"].numpy(), ["ab"[row % 2] for row in range(len(train))], by="label")
        number = groups(of_held_out["latent"]).numpy().astype(np.int64)
        records = records_of(groups.names, number, scores, peaks, settings)
        fitted, limits = GroupedScore(fitted, groups, records), limits_in_units(records)
        scores = fitted.in_units(scores, number).numpy()
    calibration = CalibrationRecord(score=score, **asdict(limits), images=len(scores), groups=records)
    model = ServedModel(
        trained,
        latent_dim=autoencoder.latent_dim,
        image=image,
        score=fitted,
        calibration=calibration,
        held_out_scores=[np.sort(scores[number == of]) for of in range(number.max() + 1)],
    )
    export_served(model, str(folder), warmup_image=images(1, 3)[0])
    record = {"image": image.model_dump(mode="json"), "calibration": calibration.to_json()}
    write_record(str(folder), record)
    return folder
