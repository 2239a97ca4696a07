"""Checkpoints: one file from which interrupted training resumes with identical results."""

import dataclasses
import hashlib
import io
import json
import logging
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from trainer.fitting.distribution import is_chief

_LOG = logging.getLogger(__name__)
_FILE = "training.npz"
_POSITION, _BEST = "position", "best"
START = -1
"""The number of the epoch whose end is the start of training."""
Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Position:
    """Progress of training."""

    step: int = 0
    """Steps done in all epochs together."""
    finished: bool = False
    """Whether training is over, after the last epoch or by early stopping."""
    history: dict[str, list[float]] = field(default_factory=dict)
    """Loss curves of the finished epochs."""
    patience: dict[str, Any] = field(default_factory=dict)
    """Early stopping's best value and epochs without a better one."""


def checkpoint_folder(parent: str, identity: Mapping[str, Any]) -> str:
    """The folder below `parent` for training with this configuration, data and source; the same in every run."""
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16)
    return f"{parent}/{digest.hexdigest()}"


def load_checkpoint(folder: str) -> tuple[Position, Arrays] | None:
    """What an interrupted run saved; None if there is nothing, or if it cannot be read, which is logged."""
    path = f"{folder}/{_FILE}"
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read()), allow_pickle=False) as stored:
            arrays = dict(stored)  # reading checks each array's CRC
        position = Position(**json.loads(arrays.pop(_POSITION).tobytes()))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, tf.errors.OpError) as error:
        _LOG.warning("the checkpoint %s is damaged (%s); training starts from the beginning", path, error)
        return None
    return position, arrays


def remove_checkpoint(folder: str) -> None:
    """Remove a checkpoint folder, once the trained model is saved elsewhere."""
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)


class Resumable(keras.callbacks.Callback):
    """Saves a checkpoint after every epoch and every `every_seconds` within one; resumes from a saved one.

    It must be the last callback. Metrics are restored too, so that an interrupted epoch's curves are complete.
    """

    def __init__(
        self,
        model: keras.Model,
        folder: str | None,
        *,
        steps_per_epoch: int,
        every_seconds: float,
        stopping: keras.callbacks.EarlyStopping | None,
    ) -> None:
        """Restore the compiled `model` from the checkpoint in `folder`, if there is one that fits."""
        super().__init__()
        self._supports_tf_logs = True  # does not fetch the batches' losses, which would wait for them
        self._folder = folder
        self._steps_per_epoch, self._every_seconds = steps_per_epoch, every_seconds
        self._stopping = stopping
        self._arrays: Arrays = {}
        self._saved_at = time.monotonic()
        self._epoch = 0
        self.position = Position()
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        model._training_state = self  # where `fit` looks for its first step
        loaded = load_checkpoint(folder) if folder else None
        if loaded:
            self._continue(model, *loaded)

    def _continue(self, model: keras.Model, position: Position, arrays: Arrays) -> None:
        unlike = _difference(model, arrays)
        if unlike:
            _LOG.warning(
                "the checkpoint in %s belongs to another model (%s); training starts from the beginning",
                *(self._folder, unlike),
            )
            return
        self.position, self._arrays = position, arrays
        _assign(model, arrays)
        _LOG.info("training resumes after step %d, from the checkpoint in %s", position.step, self._folder)

    def remember_start(self, model: keras.Model, loss: float) -> None:
        """Make the weights before the first epoch the best ones so far, with this validation loss."""
        self.position.patience = {"wait": 0, "best": loss, "best_epoch": START, "stopped_epoch": 0}
        self._arrays.update({f"{_BEST}{index:05}": array for index, array in enumerate(model.get_weights())})

    def maybe_load_initial_counters_from_ckpt(self, *_: Any, **__: Any) -> tuple[int, int]:
        """(epoch, step within it) at which `fit` begins; tf_keras calls this on the model's `_training_state`."""
        return divmod(self.position.step, self._steps_per_epoch)

    def on_train_begin(self, logs: Any = None) -> None:
        if self._stopping:
            for name, value in self.position.patience.items():
                setattr(self._stopping, name, value)
            best = [self._arrays[key] for key in sorted(self._arrays) if key.startswith(_BEST)]
            self._stopping.best_weights = best or None
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        if self.position.step % self._steps_per_epoch:
            build_metrics(self.model)
            _assign(self.model, self._arrays, kind="metric")
        self._arrays = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.position.step = self._epoch * self._steps_per_epoch + batch + 1
        within = batch + 1 < self._steps_per_epoch
        if within and time.monotonic() - self._saved_at >= self._every_seconds:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.position.history.setdefault(name, []).append(float(value))
        self.position.step = (epoch + 1) * self._steps_per_epoch
        self.position.finished = self.model.stop_training
        self._save()

    def finish(self) -> None:
        """Save the weights after `fit`, marked as finished."""
        self.position.finished = True
        self._save()
        self.model._training_state = None

    def _save(self) -> None:
        if not self._folder or not is_chief():
            return
        if self._stopping:
            names = ("wait", "best", "best_epoch", "stopped_epoch")
            self.position.patience = {name: float(getattr(self._stopping, name)) for name in names}
        arrays: dict[str, Any] = _arrays_of(self.model)
        for index, array in enumerate((self._stopping.best_weights if self._stopping else None) or []):
            arrays[f"{_BEST}{index:05}"] = array
        arrays[_POSITION] = np.frombuffer(json.dumps(dataclasses.asdict(self.position)).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        tf.io.gfile.makedirs(self._folder)
        partial = f"{self._folder}/{_FILE}.partial"
        with tf.io.gfile.GFile(partial, "wb") as file:
            file.write(buffer.getbuffer().tobytes())
        tf.io.gfile.rename(partial, f"{self._folder}/{_FILE}", overwrite=True)
        self._saved_at = time.monotonic()


def _state(model: keras.Model) -> Iterator[tuple[str, tuple[tf.Variable, ...]]]:
    """(key, this process's copies) of every variable that training changes."""
    kinds = {
        "weight": model.variables,
        "optimizer": model.optimizer.variables,
        "metric": [variable for metric in model.metrics for variable in metric.variables],
        "random": _random_states(model),
    }
    for kind, variables in kinds.items():
        for index, variable in enumerate(variables):
            yield f"{kind}{index:05}", tuple(getattr(variable, "values", (variable,)))


def _random_states(model: keras.Model) -> list[tf.Variable]:
    """States of the layers' random generators, which are not among a model's variables."""
    generators = [getattr(layer, "_generator", None) for layer in model._flatten_layers()]
    return [generator.state for generator in generators if isinstance(generator, tf.random.Generator)]


def build_metrics(model: keras.Model) -> None:
    """Create the metrics' variables, which Keras otherwise does at the first batch."""
    black = tf.zeros((1, *model.input_shape[1:]))
    model.distribute_strategy.run(model.test_step, args=((black, tf.zeros((1, *model.output_shape[1:]))),))


def _arrays_of(model: keras.Model) -> Arrays:
    """Each variable as [copies, ...]; a single copy if all are equal by design."""
    arrays = {}
    for key, copies in _state(model):
        alike = key.startswith(("weight", "optimizer"))
        arrays[key] = np.stack([copy.numpy() for copy in (copies[:1] if alike else copies)])
    return arrays


def _assign(model: keras.Model, arrays: Arrays, kind: str = "") -> None:
    for key, copies in _state(model):
        if key in arrays and key.startswith(kind):
            for index, copy in enumerate(copies):
                copy.assign(arrays[key][min(index, len(arrays[key]) - 1)])


def _difference(model: keras.Model, arrays: Arrays) -> str:
    """The first variable that is missing or has another shape; empty if the arrays fit the model."""
    for key, copies in _state(model):
        if key.startswith("metric"):
            continue
        if key not in arrays:
            return f"{key} is missing"
        if arrays[key].shape[1:] != copies[0].shape:
            return f"{key} has the shape {arrays[key].shape[1:]}, not {tuple(copies[0].shape)}"
    return ""
