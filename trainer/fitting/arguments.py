"""What the arguments that TFX passes to the Trainer and the Tuner mean: settings, folders and images."""

import json
import logging
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from runtime.tfrecords import count_records
from trainer.data.dataset import Draw, ImageSet, PixelConstants, load_images, pixel_constants
from trainer.fitting.checkpoint import checkpoint_folder
from trainer.settings.following import following_images
from trainer.settings.image import ImageSettings
from trainer.settings.trainer import TrainerSettings

_LOG = logging.getLogger(__name__)
_WITHOUT_INFLUENCE = {"cache_mb", "checkpoint_folder", "checkpoint_seconds"}
"""Fields of `trainer:` that do not change the trained model."""


def settings_of(fn_args: FnArgs) -> TrainerSettings:
    """The `trainer:` section, with the values that the Tuner chose and those that follow the images."""
    values = fn_args.custom_config["trainer"]
    if fn_args.hyperparameters:
        best = {name: from_choice(value) for name, value in fn_args.hyperparameters["values"].items()}
        _LOG.info("values chosen by the Tuner: %s", best)
        values = {**values, **best}
    image = ImageSettings.model_validate(fn_args.custom_config["image"])
    return following_images(TrainerSettings.model_validate(values), image, count_records(fn_args.train_files or ()))


def from_choice(value: Any) -> Any:
    """A KerasTuner hyperparameter as the value of a setting: KerasTuner keeps lists as JSON."""
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


def training_folder(fn_args: FnArgs) -> str:
    """Folder for the checkpoints of this training; a later run of the same training finds it again."""
    settings = settings_of(fn_args)
    parent = settings.checkpoint_folder or f"{component_folder(fn_args)}/checkpoints"
    config = fn_args.custom_config
    identity = {
        "trainer": settings.model_dump(mode="json", exclude=_WITHOUT_INFLUENCE),
        "base_model": fn_args.base_model,
        **{name: config[name] for name in ("image", "seed", "data_fingerprint", "source_fingerprint")},
    }
    return checkpoint_folder(parent, identity)


def component_folder(fn_args: FnArgs) -> str:
    """<pipeline root>/Trainer, given <pipeline root>/Trainer/model_run/<execution>."""
    return posixpath.dirname(posixpath.dirname(fn_args.model_run_dir.rstrip("/")))


@contextmanager
def loaded_splits(fn_args: FnArgs) -> Iterator[tuple[ImageSet, ImageSet, PixelConstants]]:
    """The training images, the held-out images, or their tiles, and their normalisation.

    Both splits together use at most `trainer.cache_mb` of memory. The rest goes to unnamed temporary files, whose space
    the system frees however this process ends.
    """
    settings, image = settings_of(fn_args), ImageSettings.model_validate(fn_args.custom_config["image"])
    draw = Draw(image, settings.max_tiles, fn_args.custom_config["seed"]) if image.tiles else None
    budget_mb: float = settings.cache_mb
    transform = tft.TFTransformOutput(fn_args.transform_output)
    with tempfile.TemporaryFile() as train_file, tempfile.TemporaryFile() as held_out_file:
        train = load_images(fn_args.train_files, transform, cache_mb=budget_mb, file=train_file, draw=draw)
        budget_mb -= train.images.nbytes / 2**20 if train.images is not None else 0.0
        held_out = load_images(fn_args.eval_files, transform, cache_mb=budget_mb, file=held_out_file, draw=draw)
        yield train, held_out, pixel_constants(fn_args.train_files, transform)
