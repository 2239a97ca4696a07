"""Estimates the memory of a training step, because Linux kills a process that uses too much without a message."""

import logging
import math
from collections.abc import Iterator

import tensorflow as tf
import tf_keras as keras

from runtime.memory import available_gb

_LOG = logging.getLogger(__name__)
_GIB = 2**30
_PER_WEIGHT = 4
"""Values kept for each weight: itself, its gradient and Adam's two moments."""


def step_gb(model: keras.Model, batch_size: int) -> float:
    """Estimated memory of a step in GiB: every layer's output is kept for the gradients, as float32."""
    kept = sum(math.prod(shape[1:]) for shape in _output_shapes(model))
    return float(4 * (batch_size * kept + _PER_WEIGHT * model.count_params()) / _GIB)


def warn_if_short(model: keras.Model, batch_size: int) -> None:
    """Warn if a step needs more memory than is free; TensorFlow itself reports a lack of GPU memory."""
    free_gb, needed_gb, weights_gb = available_gb(), step_gb(model, batch_size), step_gb(model, 0)
    if free_gb is None or needed_gb <= free_gb or tf.config.list_physical_devices("GPU"):
        return
    fitting = batch_size * (free_gb - weights_gb) / (needed_gb - weights_gb)
    _LOG.warning(
        "a training step needs about %.1f GB of memory, but only %.1f GB are free, so the system may kill this run; "
        "lower trainer.batch_size to %d, or use smaller images",
        *(needed_gb, free_gb, 2 ** int(math.log2(max(1.0, fitting)))),
        extra={"notice": True},
    )


def _output_shapes(model: keras.Model) -> Iterator[tuple[int, ...]]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _output_shapes(layer)
        else:
            shapes = layer.output_shape
            yield from shapes if isinstance(shapes, list) else [shapes]
