"""`conv`: convolutions with pooling in the encoder and upsampling in the decoder.

Masci et al. 2011, "Stacked Convolutional Auto-Encoders", doi:10.1007/978-3-642-21735-7_7.
"""

import math

import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape, join
from trainer.settings.model import ModelSettings

Margins = tuple[tuple[int, int], tuple[int, int]]
"""Pixels ((top, bottom), (left, right))."""


def convolutional(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """Without `latent_dim` the latent is the smallest feature map, flattened."""
    layers = keras.layers
    filters, latent_dim = settings.filters, settings.latent_dim
    stride = 2 ** (len(filters) - 1)
    margins = margins_to_multiple(shape, stride)
    map_shape = (*smallest_map(shape, stride), filters[-1])

    down = [layers.Input(shape), layers.ZeroPadding2D(margins)]
    for count in filters[:-1]:
        down += [layers.Conv2D(count, 3, activation="relu", padding="same"), layers.MaxPooling2D(2)]
    down += [
        layers.Conv2D(filters[-1], 3, activation="relu", padding="same"),
        layers.Flatten(name="latent_map"),
    ]
    if latent_dim:
        down.append(layers.Dense(latent_dim, name="latent"))

    up = [layers.Input((latent_dim or math.prod(map_shape),))]
    if latent_dim:
        up.append(layers.Dense(math.prod(map_shape), activation="relu"))
    up.append(layers.Reshape(map_shape))
    for count in reversed(filters[:-1]):
        up += [layers.Conv2D(count, 3, activation="relu", padding="same"), layers.UpSampling2D(2)]
    up += [
        layers.Conv2D(shape[2], 3, padding="same"),
        layers.Activation("sigmoid", dtype="float32"),
        layers.Cropping2D(margins, dtype="float32", name="reconstruction"),
    ]
    return join(keras.Sequential(down, name="encoder"), keras.Sequential(up, name="decoder"))


def smallest_map(shape: Shape, stride: int) -> tuple[int, int]:
    """(height, width) of an image padded to multiples of `stride` and shrunk by it."""
    return math.ceil(shape[0] / stride), math.ceil(shape[1] / stride)


def margins_to_multiple(shape: Shape, stride: int) -> Margins:
    """Margins that the encoder pads and the decoder crops, so that `stride` divides both sides."""
    height, width = ((stride - side % stride) % stride for side in shape[:2])
    return (height // 2, height - height // 2), (width // 2, width - width // 2)
