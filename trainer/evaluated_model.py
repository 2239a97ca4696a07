"""Whatever the Evaluator can judge: a candidate, or a control, behind the `examples` signature."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from schema import features
from schema.signatures import ERROR, EXAMPLES_SIGNATURE, RECONSTRUCTION, SCORE, THRESHOLD
from trainer.dataset import parse_encoded
from trainer.losses import error_per_image, ssim_per_image

Tensors = dict[str, tf.Tensor]
_EXAMPLES = tf.TensorSpec([None], tf.string, "examples")
_UNKNOWN_NORMALITY = -1


class EvaluatedModel(tf.Module):
    """An autoencoder in three functions; what they need is theirs, or in `tracked`.

    `decode_pixels`: encoded images [B] -> pixels [B, H, W, C]; `autoencode`: pixels -> reconstruction and, where
    there is one, latent; `verdict`: pixels and what `autoencode` gave -> score and threshold [B].
    """

    def __init__(
        self,
        *,
        decode_pixels: Callable[[tf.Tensor], tf.Tensor],
        autoencode: Callable[[tf.Tensor], Tensors],
        verdict: Callable[[tf.Tensor, Tensors], Tensors],
        mean_image: Any,
        tracked: tuple[Any, ...] = (),
    ) -> None:
        super().__init__()
        self._decode_pixels = decode_pixels
        self._autoencode = autoencode
        self._verdict = verdict
        self._mean_image = mean_image
        self._tracked = tracked

    @tf.function(input_signature=[_EXAMPLES], autograph=False)
    def examples(self, examples: tf.Tensor) -> Tensors:
        """Serialized tf.Examples [B] -> per image: error, SSIM, deviation from the training mean, normality."""
        pixels = self._decode_pixels(parse_encoded(examples))
        outputs = self._autoencode(pixels)
        reconstruction = outputs[RECONSTRUCTION]
        verdict = self._verdict(pixels, outputs)
        known = tf.io.FixedLenFeature([], tf.int64, default_value=_UNKNOWN_NORMALITY)
        return {
            ERROR: error_per_image(pixels, reconstruction),
            "ssim": ssim_per_image(pixels, reconstruction),
            "deviation": error_per_image(pixels, self._mean_image[tf.newaxis]),
            SCORE: verdict[SCORE],
            THRESHOLD: verdict[THRESHOLD],
            features.IS_ANOMALY: tf.io.parse_example(examples, {features.IS_ANOMALY: known})[features.IS_ANOMALY],
        }


def score_by_error(pixels: tf.Tensor, outputs: Tensors) -> Tensors:
    """The verdict of a model that is not calibrated: the error, and a threshold that is no number."""
    error = error_per_image(pixels, outputs[RECONSTRUCTION])
    return {SCORE: error, THRESHOLD: tf.fill(tf.shape(error), float("nan"))}


def export_evaluated(model: EvaluatedModel, folder: str) -> None:
    """Write a SavedModel that has the `examples` signature only."""
    tf.saved_model.save(model, folder, signatures={EXAMPLES_SIGNATURE: model.examples})
