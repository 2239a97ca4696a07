"""A frozen network that maps images to feature maps, whatever it was loaded from."""

import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from trainer.backbones.errors import BackboneError


class Backbone(tf.Module):
    """Feature maps of images. A SavedModel that holds it needs nothing but TensorFlow.

    `network` maps pixels [B, H, W, `channels`] in [0, 1] to a list of maps, one for each layer; it scales the pixels
    itself, and its variables are frozen.
    """

    def __init__(self, network: tf.Module, layers: Sequence[str], record: dict[str, Any], *, channels: int = 3) -> None:
        super().__init__()
        self._network = network
        self._channels = channels
        self._record = json.dumps({"layers": list(layers), **record})  # as text: tf.Module would wrap a dictionary

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of the maps."""
        return tuple(self.record["layers"])

    @property
    def record(self) -> dict[str, Any]:
        """What identifies the backbone: name, layers, input, licence and sha256 of the weights; JSON values only."""
        return json.loads(self._record)

    def __call__(self, pixels: tf.Tensor) -> list[tf.Tensor]:
        """[B, H, W, 1 or 3] in [0, 1] -> a map [B, h, w, c] for each layer, in float32; grey counts as RGB."""
        pixels = tf.cast(pixels, tf.float32)
        if pixels.shape[-1] == 1 and self._channels != 1:
            pixels = tf.repeat(pixels, self._channels, axis=-1)
        if pixels.shape[-1] != self._channels:
            wanted, name = self._channels, self.record["name"]
            raise BackboneError(f"the backbone {name} takes images of {wanted} channels, not of {pixels.shape[-1]}")
        return [tf.cast(features, tf.float32) for features in self._network(pixels)]


def check_layers(name: str, layers: Sequence[str], known: Sequence[str]) -> None:
    """Raises BackboneError for a layer that the backbone `name` does not have, and for one named twice."""
    for layer in layers:
        if layer not in known:
            raise BackboneError(f"the backbone {name} has no layer '{layer}'; it has {', '.join(known)}")
    if len(set(layers)) != len(layers):
        raise BackboneError(f"the layers of the backbone {name} repeat one: {', '.join(layers)}")


def last_of_each_stride(strides: Sequence[float]) -> list[int]:
    """Indices of the last layer at each of the strides 4, 8 and 16, as far as there are any."""
    rounded = [round(stride) for stride in strides]
    return [len(rounded) - 1 - rounded[::-1].index(stride) for stride in (4, 8, 16) if stride in rounded]
