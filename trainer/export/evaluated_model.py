"""A model that can be evaluated, candidate or control: the `examples` signature."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from runtime.traced_once import traced_once
from schema import features
from schema.signatures import (
    DEVIATION,
    ERROR,
    ERROR_LEVELS,
    KL,
    LATENT,
    MASK_PIXELS,
    RECONSTRUCTION,
    SCORE,
    SSIM,
    THRESHOLD,
)
from trainer.data.dataset import parse_encoded
from trainer.data.masks import masks_of
from trainer.data.region import inside_of_images
from trainer.export.portions import in_portions
from trainer.export.probes import probe
from trainer.scoring.error_maps import Tensors, error_of, full_size_map
from trainer.scoring.losses import error_per_image, ssim_per_image
from trainer.settings.image import ImageSettings

ReadExamples = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, Tensors]]
"""Serialized tf.Examples [B] -> encoded images [B], pixels [B, H, W, C], and what is known of the images."""
_EXAMPLES = tf.TensorSpec([None], tf.string, "examples")
_LARGEST_LATENT = 1024
"""No covariance is computed for larger latents."""


class EvaluatedModel(tf.Module):
    """An autoencoder as functions; `tracked` holds the variables and models that they use.

    `read`: serialized tf.Examples [B] -> what they hold, as `examples_reader` does; `autoencode`: pixels ->
    reconstruction and, if the model has them, latent, KL and feature_error; `verdict`: pixels and the outputs of
    `autoencode` -> score, threshold [B]; `anomaly_map`: the same -> [B, H, W].
    """

    def __init__(
        self,
        *,
        read: ReadExamples,
        autoencode: Callable[[tf.Tensor], Tensors],
        verdict: Callable[[tf.Tensor, Tensors], Tensors],
        anomaly_map: Callable[[tf.Tensor, Tensors], tf.Tensor] = full_size_map,
        mean_image: Any,
        image: ImageSettings,
        probed_share: float,
        tracked: tuple[Any, ...] = (),
    ) -> None:
        """`probed_share` is the share of the images that are probed with noise."""
        super().__init__()
        self._read = read
        self._autoencode = autoencode
        self._verdict = verdict
        self._anomaly_map = anomaly_map
        self._mean_image = mean_image
        self._image = image
        self._probed_share = probed_share
        self._tracked = tracked

    @tf.function(input_signature=[_EXAMPLES], autograph=False)
    def examples(self, examples: tf.Tensor) -> Tensors:
        """Serialized tf.Examples [B] -> the values of each image that the Evaluator's metrics need.

        Examples without an identifier are not probed with noise.
        """
        return in_portions(self._measured, examples, self._image)

    def _measured(self, examples: tf.Tensor) -> Tensors:
        encoded, pixels, known = self._read(examples)
        outputs = self._autoencode(pixels)
        verdict = self._verdict(pixels, outputs)
        share = tf.where(known.pop(features.IMAGE_ID) == "", 0.0, self._probed_share)
        inside = inside_of_images(pixels, self._image)
        mean = tf.cast(self._mean_image, tf.float32)[tf.newaxis]
        latent = outputs.get(LATENT)
        optional = {} if latent is None or latent.shape[1] > _LARGEST_LATENT else {LATENT: latent}
        if KL in outputs:
            optional[KL] = outputs[KL]
        return {
            ERROR: error_of(pixels, outputs),
            **_compared(
                pixels,
                outputs[RECONSTRUCTION],
                mean if inside is None else tf.where(inside[..., tf.newaxis], mean, pixels),
            ),
            SCORE: verdict[SCORE],
            THRESHOLD: verdict[THRESHOLD],
            ERROR_LEVELS: _levels(self._anomaly_map(pixels, outputs)),
            **known,
            **optional,
            **probe(encoded, pixels, self._reconstructed, share, inside),
        }

    def _reconstructed(self, pixels: tf.Tensor) -> tf.Tensor:
        return self._autoencode(pixels)[RECONSTRUCTION]


@traced_once
def _compared(pixels: tf.Tensor, reconstruction: tf.Tensor, mean_image: tf.Tensor) -> Tensors:
    """SSIM and deviation [B] of images [B, H, W, C], given the mean image [B or 1, H, W, C]."""
    return {
        SSIM: ssim_per_image(pixels, reconstruction),
        DEVIATION: error_per_image(pixels, mean_image),
    }


def _levels(values: tf.Tensor) -> tf.Tensor:
    """The upper 16 bits of float32 values, so changed that they keep the values' order: [...] -> uint16.

    As integers, positive floats are in order, and negative ones in reverse order below zero.
    """
    upper = tf.bitwise.right_shift(tf.bitcast(tf.cast(values, tf.float32), tf.int32), 16)
    return tf.cast(tf.where(upper < 0, tf.bitwise.invert(upper), upper + 2**15), tf.uint16)


def examples_reader(decode_pixels: Callable[[tf.Tensor], tf.Tensor], image: ImageSettings) -> ReadExamples:
    """What reads serialized tf.Examples; models that share it share its graph.

    `decode_pixels`: encoded images [B] -> pixels [B, H, W, C].
    """

    def read(examples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        encoded = parse_encoded(examples)
        pixels = decode_pixels(encoded)
        spec = {
            features.IS_ANOMALY: tf.io.FixedLenFeature([], tf.int64, default_value=features.UNKNOWN),
            features.IMAGE_ID: tf.io.FixedLenFeature([], tf.string, default_value=""),
        }
        known = tf.io.parse_example(examples, spec)
        return encoded, pixels, {**known, MASK_PIXELS: masks_of(examples, known[features.IS_ANOMALY], pixels, image)}

    return traced_once(read)


def score_by_error(pixels: tf.Tensor, outputs: Tensors) -> Tensors:
    """The verdict of a model without calibration: the error as the score, and NaN as the threshold."""
    error = error_per_image(pixels, outputs[RECONSTRUCTION])
    return {SCORE: error, THRESHOLD: tf.fill(tf.shape(error), float("nan"))}


def export_evaluated(models: Mapping[str, EvaluatedModel], folder: str) -> None:
    """Write one SavedModel in which each model's function `examples` is a signature with the model's name."""
    together = tf.Module()
    together.models = dict(models)
    tf.saved_model.save(together, folder, signatures={name: model.examples for name, model in models.items()})
