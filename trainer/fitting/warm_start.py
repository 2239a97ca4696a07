"""Warm start: training begins with the weights of an exported model."""

import logging

import tensorflow as tf
import tf_keras as keras
from tfx.utils import path_utils

from runtime.errors import UserError

_LOG = logging.getLogger(__name__)


class ArchitectureError(UserError):
    """The earlier model has another architecture; the message shows the difference and what to do."""


def take_weights(model: keras.Model, base_model: str | None) -> None:
    """Copy the weights of the Model artifact `base_model`, if there is one, to `model`."""
    if not base_model:
        _LOG.warning("trainer.warm_start: there is no blessed model yet, so training starts from random weights")
        return
    earlier = tf.saved_model.load(path_utils.serving_model_path(base_model)).trained.weights
    theirs, ours = ([tuple(variable.shape) for variable in variables] for variables in (earlier, model.variables))
    if theirs != ours:
        raise ArchitectureError(
            f"trainer.warm_start: the model in {base_model} has weights of shapes {_brief(theirs)}, but this "
            f"configuration needs {_brief(ours)}; use the same preset, image size, latent_dim, "
            "hidden_units, filters and linear_path, or set trainer.warm_start to false"
        )
    for variable, value in zip(model.variables, earlier, strict=True):
        variable.assign(value)
    _LOG.info("training starts from the weights of %s", base_model)


def _brief(shapes: list[tuple[int, ...]]) -> str:
    shown = ", ".join("x".join(map(str, shape)) for shape in shapes[:8])
    return shown + (f" and {len(shapes) - 8} more" if len(shapes) > 8 else "")
