"""`dense` and `deep`: fully connected layers.

Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks", doi:10.1126/science.1127647.
"""

import math

import tensorflow as tf
import tf_keras as keras

from trainer.families.autoencoder import Autoencoder, Shape, join
from trainer.families.linear_path import add_linear_pixels, linear_latent
from trainer.families.output_range import output_range
from trainer.settings.model import ModelSettings


def fully_connected(shape: Shape, settings: ModelSettings) -> Autoencoder:
    """`dense`: one layer each way and a rectified latent; `deep`: hidden layers and a linear latent."""
    activation = "relu" if settings.preset == "dense" else None
    encoder = dense_encoder(shape, settings, settings.latent_size, activation=activation)
    return join(encoder, dense_decoder(shape, settings))


def dense_encoder(shape: Shape, settings: ModelSettings, outputs: int, *, activation: str | None = None) -> keras.Model:
    """Normalised [B, H, W, C] -> [B, outputs]."""
    layers = keras.layers
    if settings.linear_path:
        image = layers.Input(shape)
        features = _hidden(layers.Flatten()(image), settings.hidden_units)
        return keras.Model(image, linear_latent(image, features, outputs), name="encoder")
    return keras.Sequential(
        [
            layers.Input(shape),
            layers.Flatten(),
            *(layers.Dense(units, activation="relu") for units in settings.hidden_units),
            layers.Dense(outputs, activation=activation, name="latent"),
        ],
        name="encoder",
    )


def dense_decoder(shape: Shape, settings: ModelSettings, *, bounded: bool = False) -> keras.Model:
    """Latent [B, Z] -> [B, H, W, C] in [0, 1].

    `bounded` limits the root mean square of the weights from each latent number to the image's values to 1.
    """
    layers = keras.layers
    if settings.linear_path:
        latent, into_range = layers.Input((settings.latent_size,)), output_range(settings.loss)
        features = _hidden(latent, settings.hidden_units[::-1])
        values = layers.Reshape(shape, dtype="float32")(
            layers.Dense(math.prod(shape), kernel_initializer="zeros")(features)
        )
        return keras.Model(latent, into_range(add_linear_pixels(latent, values, shape, into_range)), name="decoder")
    constraint = keras.constraints.MaxNorm(math.prod(shape) ** 0.5, axis=1) if bounded else None
    return keras.Sequential(
        [
            layers.Input((settings.latent_size,)),
            *(layers.Dense(units, activation="relu") for units in reversed(settings.hidden_units)),
            layers.Dense(math.prod(shape), kernel_constraint=constraint),
            layers.Activation("sigmoid", dtype="float32"),
            layers.Reshape(shape, dtype="float32", name="reconstruction"),
        ],
        name="decoder",
    )


def _hidden(features: tf.Tensor, units: tuple[int, ...]) -> tf.Tensor:
    for count in units:
        features = keras.layers.Dense(count, activation="relu")(features)
    return features
