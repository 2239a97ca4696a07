"""Writes a calibrated SavedModel of a few images without a pipeline, by the functions of Trainer and Calibrator."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from bench.timing import REPOSITORY
from schema import features
from schema.calibration_record import CalibrationRecord
from schema.features import EVAL, NORMALISED, TEST, TRAIN
from trainer.data.dataset import ImageSet, PixelConstants
from trainer.data.decoding import decode_images
from trainer.export.signatures import ServedModel, export_served
from trainer.export.trained_model import TrainedModel, unseen_maps_of, write_record
from trainer.families.autoencoder import Autoencoder
from trainer.families.registry import has_closed_form, started_autoencoder
from trainer.fitting.tracing import keep_autograph_out
from trainer.fitting.training_loop import train_autoencoder
from trainer.scoring.calibration import limits_of
from trainer.scoring.groups import GroupedScore, Groups, limits_in_units, records_of
from trainer.scoring.scores import FittedScore, fit_score
from trainer.settings.calibration import CalibrationSettings
from trainer.settings.families import FAMILY_SETTINGS
from trainer.settings.following import following_images
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

Pixels = npt.NDArray[np.float32]
NORMAL = "good"
"""The class of the normal sample images."""
_SAMPLE_IMAGES = REPOSITORY / "sample_images"
_TRAINING = {"batch_size": 32, "epochs": 40}
_AT_A_TIME = 32


def unit_constants(image: ImageSettings) -> PixelConstants:
    """Of normalisation `unit`, which changes nothing."""
    return PixelConstants(np.zeros(image.channels, np.float32), np.ones(image.channels, np.float32))


def decoded(contents: Sequence[bytes], image: ImageSettings) -> Pixels:
    """Encoded images -> [n, H, W, C] in [0, 1]."""
    pixels: Pixels = decode_images(tf.constant(contents), image).numpy()
    return pixels


def sample_images(split: str) -> list[tuple[str, bytes]]:
    """The names and bytes of the sample images of a split; a fifth of the normal ones are held out."""
    if split == TEST:
        paths = sorted((_SAMPLE_IMAGES / "test").rglob("*.jpg"))
    else:
        normal = sorted((_SAMPLE_IMAGES / "train" / NORMAL).iterdir())
        paths = [path for number, path in enumerate(normal) if (number % 5 == 0) == (split == EVAL)]
    return [(str(path), path.read_bytes()) for path in paths]


def write_samples(path: Path, split: str) -> str:
    """Write the sample images of a split as a file of tf.Examples."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, content in sample_images(split):
            texts = {features.IMAGE: content, features.IMAGE_ID: name.encode()}
            feature = {key: tf.train.Feature(bytes_list={"value": [value]}) for key, value in texts.items()}
            is_anomaly = int(Path(name).parent.name != NORMAL)
            feature[features.IS_ANOMALY] = tf.train.Feature(int64_list={"value": [is_anomaly]})
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


def train_on_samples(family: str, side_px: int, folder: Path) -> Path:
    """Train a family's defaults on the sample images, `side_px` wide and high, and write the model."""
    keep_autograph_out()
    image = ImageSettings(height_px=side_px, width_px=side_px, channels=3)
    given = TrainerSettings.model_validate(
        {"preset": family, **({} if FAMILY_SETTINGS[family].closed_form else _TRAINING)}
    )
    train, held_out = (decoded([content for _, content in sample_images(split)], image) for split in (TRAIN, EVAL))
    trainer = following_images(given, image, len(train))
    images, validating = (ImageSet(len(own), image.shape, own) for own in (train, held_out))
    constants = unit_constants(image)
    keras.utils.set_random_seed(1)
    autoencoder = started_autoencoder(image, trainer, images, constants.to_pixels)
    if not has_closed_form(trainer):
        train_autoencoder(autoencoder, images, validating, constants, trainer, seed=1)
    settings = CalibrationSettings(score="worst_pixels", false_alarm_rate=0.05)
    return write_small_model(folder, autoencoder, train, held_out, image=image, settings=settings)


def write_small_model(
    folder: Path,
    autoencoder: Autoencoder,
    train: Pixels,
    held_out: Pixels,
    *,
    image: ImageSettings,
    settings: CalibrationSettings,
    groups_of_train: Sequence[str] = (),
) -> Path:
    """Write the SavedModel and its record; with `groups_of_train` [n], the names of groups, each has a threshold."""
    errors = autoencoder.feature_errors
    trained = TrainedModel(
        autoencoder,
        transform_layer=lambda encoded: {NORMALISED: decode_images(encoded[features.IMAGE], image)},
        constants=unit_constants(image),
        mean_image=train.mean(axis=0),
        image=image,
        unseen_maps=None if errors is None else errors.unseen_maps,
    )
    unseen_maps = unseen_maps_of(trained)
    assert settings.score != "auto"
    score: FittedScore | GroupedScore
    score = ungrouped = fit_score(settings.score, settings, lambda: _batches(trained, train), unseen_maps)
    scores, peaks, latents = _measured(trained, ungrouped, held_out)
    calibration = CalibrationRecord(
        score=settings.score, **asdict(limits_of(settings, scores, peaks)), images=len(scores)
    )
    group = np.zeros(len(scores), np.int64)
    if groups_of_train:
        groups = Groups(_measured(trained, ungrouped, train)[2], groups_of_train, by="label")
        group = groups(latents).numpy().astype(np.int64)
        records = records_of(groups.names, group, scores, peaks, settings)
        score = GroupedScore(ungrouped, groups, records)
        scores = score.in_units(scores, group).numpy()
        calibration = replace(calibration, **asdict(limits_in_units(records)), groups=records)
    model = ServedModel(
        trained,
        latent_dim=image.tile_count * autoencoder.latent_dim,
        image=image,
        score=score,
        calibration=calibration,
        held_out_scores=[np.sort(scores[group == number]) for number in range(group.max() + 1)],
        test_images=len(held_out),
    )
    blank = tf.io.encode_png(np.zeros(image.shape, np.uint8)).numpy()
    export_served(model, str(folder), warmup_image=blank)
    write_record(str(folder), {"image": image.model_dump(mode="json"), "calibration": calibration.to_json()})
    return folder


def _batches(trained: TrainedModel, pixels: Pixels) -> Any:
    for start in range(0, len(pixels), _AT_A_TIME):
        batch = tf.constant(pixels[start : start + _AT_A_TIME])
        yield batch, trained.autoencode(batch)


def _measured(trained: TrainedModel, score: FittedScore, pixels: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """(score [n], largest value of its map [n], latent [n, Z]) of each image."""
    rows = [
        (score(*batch).numpy(), score.anomaly_map(*batch).numpy().max(axis=(1, 2)), batch[1]["latent"].numpy())
        for batch in _batches(trained, pixels)
    ]
    scores, peaks, latents = (np.concatenate(column) for column in zip(*rows, strict=True))
    return scores, peaks, latents
