"""Layers of a Keras network as a backbone."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from trainer.backbones.backbone import Backbone, check_layers, last_of_each_stride
from trainer.backbones.errors import BackboneError

_PROBE_PX: Final = 256
"""Image size at which the layers' strides are measured, unless the network has its own."""


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
        size = tf.TensorShape(self._model.input_shape[1:3])
        if not size.is_compatible_with(pixels.shape[1:3]):
            raise BackboneError(
                f"the backbone takes images of {size} pixels, not of {pixels.shape[1:3]}: set their size"
            )
        outputs = self._model(tf.tensordot(pixels, self._scale, 1) + self._offset, training=False)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def keras_backbone(
    model: Any, layers: Sequence[str], record: dict[str, Any], scale: npt.NDArray[Any], offset: npt.NDArray[Any]
) -> Backbone:
    """The outputs of `layers`, by default the last at strides 4, 8 and 16, for pixels @ `scale` + `offset`.

    Raises BackboneError for a model that is no graph of layers from one image, and for layers that it does not have.
    """
    name = record["name"]
    if not takes_one_image(model):
        raise BackboneError(
            f"the backbone {name} is not a network of layers from one image [H, W, 1 or 3]; save it as a SavedModel "
            "whose signature returns the feature maps, and name that folder"
        )
    strides = _strides(model)
    check_layers(name, layers, list(strides))
    names = list(layers) or [list(strides)[index] for index in last_of_each_stride(list(strides.values()))]
    if not names:
        raise BackboneError(f"no layer of the backbone {name} has stride 4, 8 or 16; name the layers to use")
    part = keras.Model(model.input, [model.get_layer(layer).output for layer in names])
    scaling = {"matrix": scale.round(6).tolist(), "offset": offset.round(6).tolist()}
    record = {**record, "input": {"range": [0, 1], "channels": len(scale), "scaling": scaling}}
    return Backbone(_Layers(part, scale, offset), names, record, channels=len(scale))


def takes_one_image(model: Any) -> bool:
    """Whether a model is a graph of layers whose only input is a batch of images, [B, H, W, 1 or 3]."""
    shape = getattr(model, "input_shape", None)
    is_graph = getattr(model, "_is_graph_network", False)
    return is_graph and isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (1, 3)


def _strides(model: Any) -> dict[str, float]:
    """Stride of every layer with a map as output; 0 for layers that only pad."""
    image = [size or _PROBE_PX for size in model.input_shape[1:3]]
    outputs = {layer.name: getattr(layer, "output", None) for layer in model.layers}  # none if used several times
    maps = {name: output for name, output in outputs.items() if len(getattr(output, "shape", ())) == 4}
    probe = tf.function(keras.Model(model.input, maps), autograph=False)
    shapes = probe.get_concrete_function(tf.TensorSpec([1, *image, model.input_shape[-1]])).structured_outputs
    pads = {layer.name for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)}
    return {name: 0 if name in pads else image[0] / shapes[name].shape[1] for name in maps}
