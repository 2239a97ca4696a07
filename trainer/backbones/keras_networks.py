"""Keras networks as backbones: a user's own file, or a network of `tf_keras.applications`."""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from trainer.backbones.backbone import Backbone, check_layers, last_of_each_stride
from trainer.backbones.errors import BackboneError

KERAS_SUFFIXES: Final = (".keras", ".h5", ".hdf5")
_CACHE: Final = "~/.keras/models"
"""Where Keras looks for weights before it downloads them."""
_PROBE_PX: Final = 256
"""Image size at which the layers' strides are measured, unless the network has its own."""
_SMALL_SCALE: Final = 1 / 64
"""A first Rescaling below this scale takes pixels in [0, 255]."""


class _Layers(tf.Module):
    """The outputs of some layers for pixels in [0, 1] times a matrix plus an offset."""

    _TF_MODULE_IGNORED_PROPERTIES = frozenset({"_model", *tf.Module._TF_MODULE_IGNORED_PROPERTIES})
    """Keeps Keras's variables, which count as trainable, from whoever trains this module; they are saved with it."""

    def __init__(self, model: Any, scale: npt.NDArray[Any], offset: npt.NDArray[Any]) -> None:
        super().__init__()
        self._model = model
        self._scale = tf.Variable(scale.astype(np.float32), trainable=False)
        self._offset = tf.Variable(offset.astype(np.float32), trainable=False)

    def __call__(self, pixels: tf.Tensor) -> list[tf.Tensor]:
        scaled = tf.tensordot(pixels, self._scale, 1) + self._offset
        outputs = self._model(scaled, training=False)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def keras_file(path: Path, name: str, layers: Sequence[str] = ()) -> Backbone:
    """A network saved as `.keras` or HDF5 by tf_keras. It gets pixels in [0, 1], or in [0, 255] if it rescales these.

    Layers are names of its layers, by default the last at strides 4, 8 and 16. The file is a program: load only what
    you trust.
    """
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras and h5py raise many kinds for unreadable files
        raise BackboneError(
            f"cannot load the backbone {name}: {_first_line(error)} If Keras 3 wrote the file, save the network as a "
            "SavedModel (model.export(FOLDER)) and name that folder."
        ) from error
    factor = 255.0 if _rescales_bytes(model) else 1.0
    record = {"name": name, "licence": "the user's own", "sha256": {path.name: _sha256(path.read_bytes())}}
    channels = int(model.input_shape[-1] or 3) if _has_one_image_as_input(model) else 3
    return _backbone(model, layers, record, factor * np.eye(channels), np.zeros(channels))


def application(name: str, layers: Sequence[str] = ()) -> Backbone:
    """A network of `tf_keras.applications` with ImageNet weights and its own scaling of pixels.

    Keras downloads the weights once and compares its checksum, where it has one. Layers are as in `keras_file`.
    """
    module = applications()[name]
    try:
        model = getattr(module, name)(include_top=False, weights="imagenet", input_shape=(None, None, 3))
    except Exception as error:  # Keras raises a plain Exception if there is no network
        raise BackboneError(_cannot_fetch(name, error)) from error
    preprocess: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = module.preprocess_input
    offset = preprocess(np.zeros((1, 3)))[0]
    scale = preprocess(255.0 * np.eye(3)) - offset
    weights = b"".join(values.tobytes() for values in model.get_weights())
    record = {"name": name, "licence": f"see Keras Applications, {name}", "sha256": {"values": _sha256(weights)}}
    return _backbone(model, layers, record, scale, offset)


def applications() -> dict[str, ModuleType]:
    """The networks of `tf_keras.applications` by name, each with the module of its scaling."""
    modules = [module for module in vars(keras.applications).values() if hasattr(module, "preprocess_input")]
    return {
        name: module
        for module in modules
        for name, build in vars(module).items()
        if name[0].isupper() and hasattr(keras.applications, name) and callable(build)
    }


def _backbone(
    model: Any, layers: Sequence[str], record: dict[str, Any], scale: npt.NDArray[Any], offset: npt.NDArray[Any]
) -> Backbone:
    if not _has_one_image_as_input(model):
        raise BackboneError(
            f"the backbone {record['name']} is not a network of layers from one image [H, W, 1 or 3]; save it as a "
            "SavedModel whose signature returns the feature maps, and name that folder"
        )
    strides = _strides(model)
    check_layers(record["name"], layers, list(strides))
    names = list(layers) or [list(strides)[index] for index in last_of_each_stride(list(strides.values()))]
    if not names:
        raise BackboneError(f"no layer of the backbone {record['name']} has stride 4, 8 or 16; name the layers to use")
    part = keras.Model(model.input, [model.get_layer(layer).output for layer in names])
    scaling = {"matrix": scale.round(6).tolist(), "offset": offset.round(6).tolist()}
    record = {**record, "input": {"range": [0, 1], "channels": len(scale), "scaling": scaling}}
    return Backbone(_Layers(part, scale, offset), names, record, channels=len(scale))


def _has_one_image_as_input(model: Any) -> bool:
    shape = getattr(model, "input_shape", None)
    is_graph = getattr(model, "_is_graph_network", False)
    return is_graph and isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (1, 3)


def _strides(model: Any) -> dict[str, float]:
    """Stride of every layer with a map as output; layers that only pad have none (0)."""
    image = [size or _PROBE_PX for size in model.input_shape[1:3]]
    outputs = {layer.name: getattr(layer, "output", None) for layer in model.layers}  # none if used several times
    maps = {name: output for name, output in outputs.items() if len(getattr(output, "shape", ())) == 4}
    probe = tf.function(keras.Model(model.input, maps), autograph=False)
    shapes = probe.get_concrete_function(tf.TensorSpec([1, *image, model.input_shape[-1]])).structured_outputs
    pads = {layer.name for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)}
    return {name: 0 if name in pads else image[0] / shapes[name].shape[1] for name in maps}


def _rescales_bytes(model: Any) -> bool:
    scales = [layer.scale for layer in model.layers if isinstance(layer, keras.layers.Rescaling)]
    return bool(scales) and bool(np.all(np.asarray(scales[0]) < _SMALL_SCALE))


def _cannot_fetch(name: str, error: Exception) -> str:
    url = re.search(r"https?://\S+", str(error))
    if not url:
        return f"cannot build the backbone {name}: {_first_line(error)}"
    address = url[0].rstrip(":")
    return (
        f"cannot download the weights of the backbone {name} ({_first_line(error)}). On a machine with a network, "
        f"download {address}, and copy the file into {_CACHE} on this one; or use efficientnet-lite0, which needs none"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
