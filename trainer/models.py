"""The autoencoders: each preset is an encoder (normalised image -> latent) and a decoder (latent -> [0, 1] image)."""

import math
from dataclasses import dataclass

import tensorflow as tf
import tf_keras as keras

from trainer.settings import ImageSettings, TrainerSettings

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Autoencoder:
    """Three Keras models that share weights; `model` maps [B, H, W, C] normalised to [B, H, W, C] in [0, 1]."""

    encoder: keras.Model
    decoder: keras.Model
    model: keras.Model

    @property
    def latent_dim(self) -> int:
        """Numbers in the latent of one image."""
        return int(self.encoder.output_shape[-1])


def build_autoencoder(image: ImageSettings, settings: TrainerSettings) -> Autoencoder:
    """The preset that `settings` names, with fresh weights from the global seed."""
    if settings.preset == "conv":
        encoder, decoder = _convolutional(image.shape, settings.filters, settings.latent_dim)
    else:
        encoder, decoder = _fully_connected(image.shape, settings.hidden_units, settings.latent_dim or 0)
    return join(encoder, decoder)


def join(encoder: keras.Model, decoder: keras.Model) -> Autoencoder:
    """One model of an encoder and a decoder whose latent shapes agree."""
    model = keras.Model(encoder.input, decoder(encoder.output), name="autoencoder")
    return Autoencoder(encoder, decoder, model)


def _fully_connected(shape: Shape, hidden_units: tuple[int, ...], latent_dim: int) -> tuple[keras.Model, keras.Model]:
    """`dense`: one layer each way; `deep`: hidden layers too.

    Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647.
    """
    layers = keras.layers
    encoder = keras.Sequential(
        [
            layers.Input(shape),
            layers.Flatten(),
            *(layers.Dense(units, activation="relu") for units in hidden_units),
            layers.Dense(latent_dim, activation="relu" if not hidden_units else None, name="latent"),
        ],
        name="encoder",
    )
    decoder = keras.Sequential(
        [
            layers.Input((latent_dim,)),
            *(layers.Dense(units, activation="relu") for units in reversed(hidden_units)),
            layers.Dense(math.prod(shape), activation="sigmoid"),
            layers.Reshape(shape, name="reconstruction"),
        ],
        name="decoder",
    )
    return encoder, decoder


def _convolutional(shape: Shape, filters: tuple[int, ...], latent_dim: int | None) -> tuple[keras.Model, keras.Model]:
    """Pooling down, upsampling up (Masci et al. 2011, doi:10.1007/978-3-642-21735-7_7).

    An image whose sides no power of two divides is padded inside the encoder and cropped inside the decoder.
    Without `latent_dim` the smallest feature map, flattened, is the latent.
    """
    layers = keras.layers
    stride = 2 ** (len(filters) - 1)
    height, width = (math.ceil(side / stride) * stride for side in shape[:2])
    extra = (height - shape[0], width - shape[1])
    margins = tuple((side // 2, side - side // 2) for side in extra)
    map_shape = (height // stride, width // stride, filters[-1])

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
        layers.Conv2D(shape[2], 3, activation="sigmoid", padding="same"),
        layers.Cropping2D(margins, name="reconstruction"),
    ]
    return keras.Sequential(down, name="encoder"), keras.Sequential(up, name="decoder")


def pays_to_compile(settings: TrainerSettings) -> bool:
    """Whether XLA speeds this preset up: matrix products yes; on CPU convolutions no, they become slower."""
    return settings.preset != "conv" or bool(tf.config.list_physical_devices("GPU"))
