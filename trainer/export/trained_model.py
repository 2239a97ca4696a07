"""The Trainer's export: an autoencoder with its preprocessing, not calibrated yet, and its record."""

import json
from pathlib import PurePosixPath
from typing import Any

import tensorflow as tf
import tf_keras as keras

from schema import features
from schema.artifacts import RECORD_FILE
from schema.signatures import FEATURE_ERROR, KL, LATENT, RECONSTRUCTION
from trainer.data.dataset import Images, PixelConstants
from trainer.data.decoding import decode_to_bytes
from trainer.data.region import limited, within
from trainer.data.tiles import fits_at_once, tiled, tiled_at_once, tiled_latents
from trainer.families.autoencoder import Autoencoder
from trainer.scoring.scores import Tensors
from trainer.settings.image import ImageSettings

ENCODED = tf.TensorSpec([None], tf.string, "encoded")


class TrainedModel(tf.Module):
    """An autoencoder that is not calibrated yet; its functions can be saved and loaded.

    `decode_pixels`: encoded images [B] -> pixels [B, H, W, C] in [0, 1], by Transform's graph.
    `autoencode`: pixels -> reconstruction [B, H, W, C], latent [B, Z] and, for some families, KL [B] or feature_error
    [B, h, w]. `autoencode_one`: the same for a single image, without loops, unless it has too many tiles.
    With tiles, `decode_to_bytes`: as `decode_pixels`, as `pixel_bytes` [B, H, W, C, n], by the function in Transform's
    graph, whose outputs would take four times the memory; `errors`: these bytes -> as `autoencode`, with pixel_error
    [B, H, W] in place of the reconstruction.
    `unseen_maps` [n, h, w], if given: feature_error of training images, from fits without them.
    `encode`, `decode`: pixels -> latent, latent -> reconstruction. With tiles, the latent is that of all tiles.
    `weights`: the weights of `Autoencoder.model`, in Keras's order.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        *,
        transform_layer: keras.Model,
        constants: PixelConstants,
        mean_image: Images,
        image: ImageSettings,
        unseen_maps: tf.Variable | None = None,
    ) -> None:
        super().__init__()
        # Of a large image, halves are as good, and take half of the memory as long as the model is served.
        self.mean_image = tf.Variable(mean_image, trainable=False, dtype=tf.float16 if image.tiles else tf.float32)
        self.weights = autoencoder.model.variables
        # Variables rather than Keras models, so that functions that are never called are neither traced nor saved.
        self._variables = [*autoencoder.encoder.variables, *autoencoder.decoder.variables]
        encode, decode = autoencoder.encoder, autoencoder.decoder
        self._feature_errors = autoencoder.feature_errors
        if unseen_maps is not None:
            self.unseen_maps = unseen_maps
        pixels = tf.TensorSpec([None, *mean_image.shape], tf.float32, "pixels")
        latent = tf.TensorSpec([None, image.tile_count * autoencoder.latent_dim], tf.float32, LATENT)

        def autoencode(pixels: tf.Tensor) -> Tensors:
            normalised = constants.normalise(pixels)
            if autoencoder.feature_errors is not None:
                latent, errors = autoencoder.feature_errors(normalised)
                return {RECONSTRUCTION: decode(latent), LATENT: latent, FEATURE_ERROR: errors}
            latent = encode(normalised)
            own = {} if autoencoder.divergence is None else {KL: autoencoder.divergence(normalised)}
            return {RECONSTRUCTION: decode(latent), LATENT: latent, **own}

        if fits_at_once(image):
            one = tf.TensorSpec([1, *mean_image.shape], tf.float32, "pixels")
            self.autoencode_one = _function(limited(tiled_at_once(autoencode, image), image), one)
        self.decode_pixels = pixels_decoder(transform_layer, constants)
        self.autoencode = _function(limited(tiled(autoencode, image), image), pixels)
        if image.tiles is not None:
            levels = tf.constant(constants.levels, tf.float32)
            of_files = tf.TensorSpec([*pixels.shape, None], tf.uint8, "bytes")
            self.decode_to_bytes = _function(lambda encoded: decode_to_bytes(encoded, image, levels), ENCODED)
            self.errors = _function(limited(tiled(autoencode, image, shows=False), image), of_files)
        encode_tiles = tiled(lambda pixels: {LATENT: encode(constants.normalise(pixels))}, image)
        self.encode = _function(lambda pixels: encode_tiles(within(pixels, image))[LATENT], pixels)
        decode_tiles = tiled_latents(lambda latents: {RECONSTRUCTION: decode(latents)}, image)
        self.decode = _function(lambda latents: decode_tiles(latents)[RECONSTRUCTION], latent)


def pixels_decoder(transform_layer: keras.Model, constants: PixelConstants) -> Any:
    """The function of encoded images [B] -> pixels [B, H, W, C] in [0, 1], by Transform's graph, traced once.

    Transform's graph has no variables. Nothing needs to track the layer, which Keras would otherwise trace again, and
    save, with every model.
    """
    return _function(
        lambda encoded: constants.to_pixels(transform_layer({features.IMAGE: encoded})[features.NORMALISED]), ENCODED
    )


def unseen_maps_of(trained: Any) -> Any:
    """`unseen_maps` of a model, loaded or not, as a tensor whose length is known; None if it has none."""
    return tf.constant(trained.unseen_maps.numpy()) if hasattr(trained, "unseen_maps") else None


def export_trained(model: TrainedModel, folder: str, *, record: dict[str, Any]) -> None:
    """Write the SavedModel, without signatures, and its record."""
    tf.saved_model.save(model, folder)
    write_record(folder, record)


def write_record(folder: str, record: dict[str, Any]) -> None:
    """Write `assets.extra/autoencoder.json` beside a SavedModel."""
    tf.io.gfile.makedirs(f"{folder}/{PurePosixPath(RECORD_FILE).parent}")
    with tf.io.gfile.GFile(f"{folder}/{RECORD_FILE}", "w") as file:
        file.write(json.dumps(record, indent=2, sort_keys=True))


def read_record(folder: str) -> dict[str, Any]:
    """Read the record beside a SavedModel."""
    with tf.io.gfile.GFile(f"{folder}/{RECORD_FILE}") as file:
        record: dict[str, Any] = json.load(file)
    return record


def _function(body: Any, spec: tf.TensorSpec) -> Any:
    return tf.function(body, input_signature=[spec], autograph=False)
