"""Begin with the weights of a model that was exported before."""

import logging

import tensorflow as tf
import tf_keras as keras
from tfx.utils import path_utils

from runtime.errors import UserError

_LOG = logging.getLogger(__name__)


class ArchitectureError(UserError):
    """The earlier model is built otherwise; the message says where, and what to do."""


def take_weights(model: keras.Model, base_model: str | None) -> None:
    """Give `model` the weights of the Model artifact `base_model`; where there is none yet, say so and keep its own."""
    if not base_model:
        _LOG.warning("trainer.warm_start: no model was blessed before, so training starts with random weights")
        return
    earlier = tf.saved_model.load(path_utils.serving_model_path(base_model)).trained.weights
    theirs, ours = ([tuple(variable.shape) for variable in variables] for variables in (earlier, model.variables))
    if theirs != ours:
        raise ArchitectureError(
            f"trainer.warm_start: the model in {base_model} has weights of the shapes {_brief(theirs)}, this "
            f"configuration asks for {_brief(ours)}: keep preset, image size, latent_dim, hidden_units and filters as "
            "they were, or set trainer.warm_start to false"
        )
    for variable, value in zip(model.variables, earlier, strict=True):
        variable.assign(value)
    _LOG.info("training starts with the weights of %s", base_model)


def _brief(shapes: list[tuple[int, ...]]) -> str:
    shown = ", ".join("x".join(map(str, shape)) for shape in shapes[:8])
    return shown + (f" and {len(shapes) - 8} more" if len(shapes) > 8 else "")
