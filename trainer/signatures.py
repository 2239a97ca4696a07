"""The exported model: one graph, several doors (TensorFlow signatures), and what is recorded beside it."""

import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import tensorflow as tf
import tf_keras as keras
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from schema import features
from schema.artifacts import RECORD_FILE, WARMUP_FILE
from schema.signatures import (
    ERROR,
    ERROR_MAP,
    EXAMPLES_SIGNATURE,
    IMAGE_BYTES,
    IS_ANOMALY,
    LATENT,
    RECONSTRUCT_SIGNATURE,
    RECONSTRUCTION,
    SCORE,
    SCORE_SIGNATURE,
    THRESHOLD,
)
from trainer.dataset import Images, PixelConstants, parse_encoded
from trainer.losses import error_map, error_per_image, ssim_per_image
from trainer.models import Autoencoder
from trainer.preprocessing import NORMALISED

Tensors = dict[str, tf.Tensor]
ReconstructFn = Callable[[tf.Tensor], tf.Tensor]
"""Normalised images [B, H, W, C] -> reconstructions [B, H, W, C] in [0, 1]."""
_EXAMPLES = tf.TensorSpec([None], tf.string, "examples")
_IMAGE_BYTES = tf.TensorSpec([None], tf.string, IMAGE_BYTES)
_UNKNOWN_NORMALITY = -1


class EvaluatedModel(tf.Module):
    """Whatever the Evaluator can judge: a `reconstruct_fn` behind the `examples` signature."""

    def __init__(
        self,
        *,
        transform_layer: keras.Model,
        constants: PixelConstants,
        mean_image: Images,
        reconstruct_fn: ReconstructFn,
        tracked: tuple[Any, ...] = (),
    ) -> None:
        """`tracked` holds the variables that `reconstruct_fn` uses."""
        super().__init__()
        self._transform_layer = transform_layer
        self._constants = constants
        self._mean_image = tf.constant(mean_image)
        self._reconstruct_fn = reconstruct_fn
        self._tracked = tracked

    def normalised_from_bytes(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded images [B] -> [B, H, W, C], by Transform's graph."""
        return self._transform_layer({features.IMAGE: encoded})[NORMALISED]

    @tf.function(input_signature=[_EXAMPLES], autograph=False)
    def examples(self, examples: tf.Tensor) -> Tensors:
        """Serialized tf.Examples [B] -> per image: error, SSIM, deviation from the training mean, normality."""
        normalised = self.normalised_from_bytes(parse_encoded(examples))
        pixels = self._constants.to_pixels(normalised)
        reconstruction = self._reconstruct_fn(normalised)
        known = tf.io.FixedLenFeature([], tf.int64, default_value=_UNKNOWN_NORMALITY)
        return {
            ERROR: error_per_image(pixels, reconstruction),
            "ssim": ssim_per_image(pixels, reconstruction),
            "deviation": error_per_image(pixels, self._mean_image[tf.newaxis]),
            features.IS_ANOMALY: tf.io.parse_example(examples, {features.IS_ANOMALY: known})[features.IS_ANOMALY],
        }


class ServedModel(EvaluatedModel):
    """An autoencoder with its threshold, ready for TensorFlow Serving."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        *,
        threshold: float,
        transform_layer: keras.Model,
        constants: PixelConstants,
        mean_image: Images,
    ) -> None:
        super().__init__(
            transform_layer=transform_layer,
            constants=constants,
            mean_image=mean_image,
            reconstruct_fn=autoencoder.model,
            tracked=(autoencoder.encoder, autoencoder.decoder, autoencoder.model),
        )
        self._autoencoder = autoencoder
        self._threshold = tf.Variable(threshold, trainable=False, dtype=tf.float32, name="threshold")

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def serving_default(self, image_bytes: tf.Tensor) -> Tensors:
        """Encoded images [B] -> error, score, threshold [B] float32 and is_anomaly [B] int64."""
        normalised = self.normalised_from_bytes(image_bytes)
        error = error_per_image(self._constants.to_pixels(normalised), self._autoencoder.model(normalised))
        return self._verdict(error)

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def reconstruct(self, image_bytes: tf.Tensor) -> Tensors:
        """As `serving_default`, with reconstruction [B, H, W, C], error_map [B, H, W] and latent [B, Z]."""
        return self._everything(self.normalised_from_bytes(image_bytes))

    def signatures(self) -> dict[str, Any]:
        """All doors by name; those for pixels and latents take their shapes from the model."""
        image = tf.TensorSpec(self._autoencoder.encoder.input_shape, tf.float32, "image")
        latent = tf.TensorSpec([None, self._autoencoder.latent_dim], tf.float32, LATENT)
        normalise = self._constants.normalise
        doors = {
            "pixels": (lambda image: self._everything(normalise(image)), image),
            "encode": (lambda image: {LATENT: self._autoencoder.encoder(normalise(image))}, image),
            "decode": (lambda latent: {RECONSTRUCTION: self._autoencoder.decoder(latent)}, latent),
        }
        functions = {
            name: tf.function(body, autograph=False).get_concrete_function(spec) for name, (body, spec) in doors.items()
        }
        return {
            SCORE_SIGNATURE: self.serving_default,
            RECONSTRUCT_SIGNATURE: self.reconstruct,
            EXAMPLES_SIGNATURE: self.examples,
            **functions,
        }

    def _everything(self, normalised: tf.Tensor) -> Tensors:
        pixels = self._constants.to_pixels(normalised)
        latent = self._autoencoder.encoder(normalised)
        reconstruction = self._autoencoder.decoder(latent)
        return {
            **self._verdict(error_per_image(pixels, reconstruction)),
            RECONSTRUCTION: reconstruction,
            ERROR_MAP: error_map(pixels, reconstruction),
            LATENT: latent,
        }

    def _verdict(self, error: tf.Tensor) -> Tensors:
        return {
            ERROR: error,
            SCORE: error,
            THRESHOLD: tf.fill(tf.shape(error), self._threshold),
            IS_ANOMALY: tf.cast(error > self._threshold, tf.int64),
        }


def export_served(model: ServedModel, folder: str, *, record: dict[str, Any], warmup_image: bytes) -> None:
    """Write the SavedModel, its record (`assets.extra/autoencoder.json`) and its warm-up requests."""
    tf.saved_model.save(model, folder, signatures=model.signatures())
    _make_parent(folder, RECORD_FILE)
    with tf.io.gfile.GFile(f"{folder}/{RECORD_FILE}", "w") as file:
        file.write(json.dumps(record, indent=2, sort_keys=True))
    with tf.io.TFRecordWriter(f"{folder}/{WARMUP_FILE}") as writer:
        for signature in (SCORE_SIGNATURE, RECONSTRUCT_SIGNATURE):
            writer.write(_warmup_request(signature, warmup_image).SerializeToString())


def export_evaluated(model: EvaluatedModel, folder: str) -> None:
    """Write a SavedModel that has the `examples` signature only."""
    tf.saved_model.save(model, folder, signatures={EXAMPLES_SIGNATURE: model.examples})


def _warmup_request(signature: str, image: bytes) -> Any:
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(signature_name=signature),
        inputs={IMAGE_BYTES: tf.make_tensor_proto([image])},
    )
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))


def _make_parent(folder: str, relative: str) -> None:
    tf.io.gfile.makedirs(f"{folder}/{PurePosixPath(relative).parent}")
