"""Control models, evaluated like the candidate: two that the gate must refuse (untrained, constant) and PCA."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from schema.artifacts import CONSTANT, CONTROLS_FOLDER, PCA_FLOOR, UNTRAINED
from schema.signatures import RECONSTRUCTION
from trainer.data.dataset import Images, ImageSet, PixelConstants
from trainer.export.evaluated_model import EvaluatedModel, export_evaluated, score_by_error
from trainer.export.probes import PROBED_IMAGES
from trainer.export.trained_model import pixels_decoder
from trainer.families.autoencoder import Autoencoder
from trainer.families.principal_components import fit_pca
from trainer.scoring.error_maps import Tensors
from trainer.settings.image import ImageSettings

PixelsFn = Callable[[tf.Tensor], tf.Tensor]


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
    held_out_count: int,
) -> None:
    """Write `controls/<control>/Format-Serving` for each control, as the Evaluator expects a Model artifact."""
    mean = tf.constant(mean_image)[tf.newaxis]
    reconstruct_by_pca, pca_variables = _pca_reconstruction(train, latent_dim, constants)
    controls = {
        UNTRAINED: (lambda pixels: untrained.model(constants.normalise(pixels)), untrained.model.variables),
        CONSTANT: (lambda pixels: tf.zeros_like(pixels) + mean, ()),
        PCA_FLOOR: (reconstruct_by_pca, pca_variables),
    }
    for name, (reconstruct, tracked) in controls.items():
        model = EvaluatedModel(
            decode_pixels=pixels_decoder(transform_layer, constants),
            autoencode=_as_outputs(reconstruct),
            verdict=score_by_error,
            mean_image=mean[0],
            image=image,
            probed_share=PROBED_IMAGES / held_out_count,
            tracked=(transform_layer, *tracked),
        )
        export_evaluated(model, f"{model_run_dir}/{CONTROLS_FOLDER}/{name}/Format-Serving")


def _as_outputs(reconstruct: PixelsFn) -> Callable[[tf.Tensor], Tensors]:
    return lambda pixels: {RECONSTRUCTION: reconstruct(pixels)}


def _pca_reconstruction(
    train: ImageSet, latent_dim: int, constants: PixelConstants
) -> tuple[PixelsFn, tuple[tf.Variable, ...]]:
    """PCA of the training pixels as a TensorFlow function."""
    pca = fit_pca(train, latent_dim, constants.to_pixels)
    mean, axes = (tf.Variable(array, trainable=False) for array in (pca.mean, pca.axes))

    def reconstruct(pixels: tf.Tensor) -> tf.Tensor:
        centred = tf.reshape(pixels, [tf.shape(pixels)[0], -1]) - mean
        projected = tf.matmul(tf.matmul(centred, axes, transpose_b=True), axes) + mean
        return tf.reshape(projected, tf.shape(pixels))

    return reconstruct, (mean, axes)
