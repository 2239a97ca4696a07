"""Control models, evaluated like the candidate: two that the gate must refuse, and two simple ones to compare with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from runtime.traced_once import traced_once
from schema.artifacts import CONSTANT, CONTROLS_FOLDER, NEIGHBOURS_FLOOR, PCA_FLOOR, UNTRAINED
from schema.signatures import LATENT, RECONSTRUCTION, SCORE, THRESHOLD
from trainer.data.dataset import Images, ImageSet, PixelConstants
from trainer.data.region import limited
from trainer.data.tiles import tiled
from trainer.export.evaluated_model import EvaluatedModel, examples_reader, export_evaluated, score_by_error
from trainer.export.trained_model import pixels_decoder
from trainer.families.autoencoder import Autoencoder
from trainer.families.principal_components import fit_pca
from trainer.scoring.error_maps import Tensors
from trainer.scoring.scores import mean_distance_to_nearest
from trainer.settings.image import ImageSettings

_NEIGHBOUR_COMPONENTS = 16
_BANK = 2048
"""Training images, evenly spaced, among which nearest neighbours are searched."""


@dataclass(frozen=True)
class _Control:
    autoencode: Callable[[tf.Tensor], Tensors]
    """Of images, or of tiles."""
    tracked: tuple[Any, ...] = ()
    verdict: Callable[[tf.Tensor, Tensors], Tensors] = score_by_error


def export_controls(
    model_run_dir: str,
    *,
    untrained: Autoencoder,
    train: ImageSet,
    latent_dim: int,
    transform_layer: keras.Model,
    constants: PixelConstants,
    mean_image: Images,
    image: ImageSettings,
) -> None:
    """Write one SavedModel, `controls`, with a signature for each control that takes serialized tf.Examples."""
    mean = tf.constant(mean_image)[tf.newaxis]
    simple = {
        UNTRAINED: _Control(
            lambda pixels: {RECONSTRUCTION: untrained.model(constants.normalise(pixels))}, untrained.model.variables
        ),
        PCA_FLOOR: _pca(train, latent_dim, constants),
        NEIGHBOURS_FLOOR: _nearest_neighbours(train, constants),
    }
    controls = {name: replace(control, autoencode=tiled(control.autoencode, image)) for name, control in simple.items()}
    controls[CONSTANT] = _Control(lambda pixels: {RECONSTRUCTION: tf.zeros_like(pixels) + mean})
    read = examples_reader(pixels_decoder(transform_layer, constants), image)
    models = {
        name: EvaluatedModel(
            read=read,
            autoencode=traced_once(limited(control.autoencode, image)),
            verdict=control.verdict,
            mean_image=mean[0],
            image=image,
            probed_share=1.0,  # of the sample that they are measured on
            tracked=control.tracked,
        )
        for name, control in controls.items()
    }
    export_evaluated(models, f"{model_run_dir}/{CONTROLS_FOLDER}")


def _pca(train: ImageSet, components: int, constants: PixelConstants) -> _Control:
    """PCA of the training pixels as a TensorFlow function, with at most this many components."""
    pca = fit_pca(train, components, constants.to_pixels)
    mean, axes = (tf.Variable(array, trainable=False) for array in (pca.mean, pca.axes))

    def autoencode(pixels: tf.Tensor) -> Tensors:
        centred = tf.reshape(pixels, [tf.shape(pixels)[0], -1]) - mean
        latent = tf.matmul(centred, axes, transpose_b=True)
        return {RECONSTRUCTION: tf.reshape(tf.matmul(latent, axes) + mean, tf.shape(pixels)), LATENT: latent}

    return _Control(autoencode, (mean, axes))


def _nearest_neighbours(train: ImageSet, constants: PixelConstants) -> _Control:
    """PCA whose score is the mean distance, among 16 components, to the 5 nearest training images of the bank.

    With tiles, it is that of the tile that is farthest from its neighbours.
    """
    pca = _pca(train, _NEIGHBOUR_COMPONENTS, constants)
    rows = np.linspace(0, train.count - 1, min(_BANK, train.count)).round().astype(int)
    portions = np.array_split(rows, -(-len(rows) // 64))
    latents = [pca.autoencode(tf.constant(constants.to_pixels(train.rows(part))))[LATENT] for part in portions]
    bank = tf.Variable(tf.concat(latents, axis=0), trainable=False)

    def verdict(pixels: tf.Tensor, outputs: Tensors) -> Tensors:
        of_tiles = tf.reshape(outputs[LATENT], [-1, bank.shape[1]])
        distances = tf.reshape(
            mean_distance_to_nearest(of_tiles, bank), [-1, outputs[LATENT].shape[1] // bank.shape[1]]
        )
        distance = tf.reduce_max(distances, axis=1)
        return {SCORE: distance, THRESHOLD: tf.fill(tf.shape(distance), float("nan"))}

    return _Control(pca.autoencode, (*pca.tracked, bank), verdict)
