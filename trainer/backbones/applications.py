"""The networks of `tf_keras.applications`, with ImageNet weights, as backbones."""

import hashlib
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Final

import numpy as np
import tf_keras as keras

from trainer.backbones.backbone import Backbone
from trainer.backbones.errors import BackboneError, first_line
from trainer.backbones.keras_layers import keras_backbone

_CACHE: Final = "~/.keras/models"
"""Where Keras looks for weights before it downloads them."""


def application(name: str, layers: Sequence[str] = ()) -> Backbone:
    """The network `name` of `applications()`, with its own scaling of pixels; layers are names of its layers.

    Keras downloads the weights once, and compares its checksum where it has one. The record holds the sha256 of the
    weights' values, since the file's name is known only to Keras.
    """
    module = applications()[name]
    try:
        model = getattr(module, name)(include_top=False, weights="imagenet", input_shape=(None, None, 3))
    except Exception as error:  # without a network, Keras raises a plain Exception
        raise BackboneError(_cannot_build(name, error)) from error
    offset = module.preprocess_input(np.zeros((1, 3)))[0]
    scale = module.preprocess_input(255.0 * np.eye(3)) - offset  # all scalings of Keras are affine
    digest = hashlib.sha256()
    for values in model.get_weights():
        digest.update(values.tobytes())
    record = {"name": name, "licence": f"see Keras Applications, {name}", "sha256": {"values": digest.hexdigest()}}
    return keras_backbone(model, layers, record, scale, offset)


def applications() -> dict[str, ModuleType]:
    """The networks by name, each with the module that builds it and scales its pixels."""
    modules = [module for module in vars(keras.applications).values() if hasattr(module, "preprocess_input")]
    return {
        name: module
        for module in modules
        for name in vars(module)
        if name[0].isupper() and hasattr(keras.applications, name)
    }


def _cannot_build(name: str, error: Exception) -> str:
    url = re.search(r"https?://\S+(?=:)", str(error))
    if not url:
        return f"cannot build the backbone {name} ({first_line(error)})"
    return (
        f"cannot download the weights of the backbone {name}. On a machine with a network, download {url[0]}, and copy "
        f"the file into {_CACHE} on this one; or use efficientnet-lite0, which needs no network ({first_line(error)})"
    )
