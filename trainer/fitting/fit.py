"""From the Trainer's arguments to a trained autoencoder, on whatever devices and machines there are."""

import json
import logging
import os
import posixpath
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras as keras
from tfx.components.trainer.fn_args_utils import FnArgs

from runtime.tfrecords import as_many_as_fit
from schema.artifacts import JOB_FILE
from trainer.data.dataset import Images, ImageSet, PixelConstants, load_images
from trainer.families.presets import Autoencoder, build_autoencoder
from trainer.families.residual import ResidualDecoder
from trainer.fitting.checkpoint import checkpoint_folder
from trainer.fitting.distribution import local_strategy
from trainer.fitting.precision import FLOAT32, computing_in
from trainer.fitting.training import train_autoencoder
from trainer.fitting.warm_start import take_weights
from trainer.settings.trainer import ImageSettings, TrainerSettings

_LOG = logging.getLogger(__name__)
_WITHOUT_INFLUENCE = {"cache_mb", "checkpoint_folder", "checkpoint_seconds"}
_SIGN_OF_LIFE_S = 2.0
_MEAN_OF = 1000
"""Training images whose mean colour is what a decoder starts from: so many, or fewer if they are large."""
_JOB_FIELDS = (
    "train_files",
    "eval_files",
    "transform_output",
    "model_run_dir",
    "base_model",
    "hyperparameters",
    "custom_config",
)


def settings_of(fn_args: FnArgs) -> TrainerSettings:
    """The `trainer` section, with what the Tuner found best in place of the configured values."""
    values = fn_args.custom_config["trainer"]
    if fn_args.hyperparameters:
        best = {name: from_choice(value) for name, value in fn_args.hyperparameters["values"].items()}
        _LOG.info("the Tuner's choice: %s", best)
        values = {**values, **best}
    return TrainerSettings.model_validate(values)


def from_choice(value: Any) -> Any:
    """A hyperparameter as KerasTuner keeps it, where lists are JSON, as a setting's value."""
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


def training_folder(fn_args: FnArgs) -> str:
    """Where this training is kept while it is not finished, found again by the next run of the same."""
    settings = settings_of(fn_args)
    parent = settings.checkpoint_folder or f"{_component_folder(fn_args)}/checkpoints"
    config = fn_args.custom_config
    identity = {
        "trainer": settings.model_dump(mode="json", exclude=_WITHOUT_INFLUENCE),
        "base_model": fn_args.base_model,
        **{name: config[name] for name in ("image", "seed", "data_fingerprint", "source_fingerprint")},
    }
    return checkpoint_folder(parent, identity)


@contextmanager
def loaded_splits(fn_args: FnArgs) -> Iterator[tuple[ImageSet, ImageSet]]:
    """The training and the held-out images; together they take at most `trainer.cache_mb` of memory.

    What does not fit lies in files without a name: however this process ends, the system frees their space.
    """
    budget_mb: float = settings_of(fn_args).cache_mb
    transform = tft.TFTransformOutput(fn_args.transform_output)
    with tempfile.TemporaryFile() as train_file, tempfile.TemporaryFile() as held_out_file:
        train = load_images(fn_args.train_files, transform, cache_mb=budget_mb, file=train_file)
        budget_mb -= train.images.nbytes / 2**20 if train.images is not None else 0.0
        yield train, load_images(fn_args.eval_files, transform, cache_mb=budget_mb, file=held_out_file)


def fit(
    fn_args: FnArgs,
    train: ImageSet,
    held_out: ImageSet,
    constants: PixelConstants,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[Autoencoder, dict[str, list[float]]]:
    """A trained autoencoder and its loss curves; without `strategy`, on this machine's devices."""
    settings, seed = settings_of(fn_args), fn_args.custom_config["seed"]
    image = ImageSettings.model_validate(fn_args.custom_config["image"])
    strategy = strategy or local_strategy()
    keras.utils.set_random_seed(seed)
    with strategy.scope(), computing_in(settings.precision) as policy:
        autoencoder = build_autoencoder(image, settings)
        if isinstance(autoencoder.decoder, ResidualDecoder):
            autoencoder.decoder.start_at(_mean_colour(train, constants))
        if settings.warm_start:
            take_weights(autoencoder.model, fn_args.base_model)
    history = train_autoencoder(
        autoencoder,
        train,
        held_out,
        constants,
        settings,
        seed=seed,
        log_dir=fn_args.model_run_dir,
        checkpoint_folder=training_folder(fn_args),
    )
    if strategy.num_replicas_in_sync == 1 and policy == FLOAT32:
        return autoencoder, history
    # What is exported must know nothing of the devices that it was trained on, nor of their precision.
    plain = build_autoencoder(image, settings)
    plain.model.set_weights(autoencoder.model.get_weights())
    return plain, history


def _mean_colour(train: ImageSet, constants: PixelConstants) -> Images:
    """[C] in [0, 1]."""
    sample = train.sample(as_many_as_fit(train.shape, at_most=_MEAN_OF))
    mean: Images = np.asarray(constants.to_pixels(sample)).mean(axis=(0, 1, 2))
    return mean


def fit_on_several_machines(fn_args: FnArgs) -> None:
    """Train in a process of its own, with those that `autoencoder worker` runs on the other machines.

    TensorFlow must know of the others before it does anything, and this process has done much. What the workers leave
    is a finished checkpoint, which `fit` then finds.
    """
    path = f"{_component_folder(fn_args)}/{JOB_FILE}"
    write_job(fn_args, path)
    packages = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer.worker", path], env={**os.environ, "PYTHONPATH": packages}
        )
        status = _wait(process, lambda: write_job(fn_args, path))
    finally:
        tf.io.gfile.remove(path)
    if status:
        raise RuntimeError(
            f"training on several machines ended with status {status}: a worker is gone, or cannot be reached; the "
            "next run, with all workers started again, continues from the last checkpoint"
        )


def _wait(process: subprocess.Popen[bytes], sign_of_life: Callable[[], None]) -> int:
    """The exit status of `process`, which ends no later than this one; until then `sign_of_life` is called."""
    try:
        while True:
            try:
                return process.wait(_SIGN_OF_LIFE_S)
            except subprocess.TimeoutExpired:
                sign_of_life()
    finally:
        process.kill()


def write_job(fn_args: FnArgs, path: str) -> None:
    """What the processes that train together read; it appears whole or not at all.

    Written again and again while training lasts: a file that stays as it is was left by a killed run, see `worker`.
    """
    job = {name: getattr(fn_args, name) for name in _JOB_FIELDS}
    with tf.io.gfile.GFile(path + ".partial", "w") as file:
        file.write(json.dumps(job))
    tf.io.gfile.rename(path + ".partial", path, overwrite=True)


def _component_folder(fn_args: FnArgs) -> str:
    """<pipeline root>/Trainer, of <pipeline root>/Trainer/model_run/<execution>."""
    return posixpath.dirname(posixpath.dirname(fn_args.model_run_dir.rstrip("/")))
