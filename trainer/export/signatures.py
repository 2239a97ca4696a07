"""The served model: one graph with several signatures, and its warm-up requests."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from runtime.traced_once import traced_once
from schema.artifacts import WARMUP_FILE
from schema.calibration_record import CalibrationRecord
from schema.signatures import (
    ALL_SCORES_SIGNATURE,
    ANOMALY_MAP,
    ANOMALY_MASK,
    ERROR,
    ERROR_MAP,
    EXAMPLES_SIGNATURE,
    FALSE_ALARM_RATE,
    GROUP,
    IMAGE_BYTES,
    IS_ANOMALY,
    IS_PADDED,
    LATENT,
    LOCATE_SIGNATURE,
    P_VALUE,
    RECONSTRUCT_SIGNATURE,
    RECONSTRUCTION,
    SCORE,
    SCORE_AT_SIGNATURE,
    SCORE_SIGNATURE,
    SMALLEST_REGION,
    THRESHOLD,
)
from trainer.data.region import within
from trainer.export.evaluated_model import EvaluatedModel, examples_reader
from trainer.export.portions import in_portions
from trainer.export.probes import share_to_probe
from trainer.scoring.calibration import p_values, thresholds_at
from trainer.scoring.error_maps import Tensors, error_of, full_size_map
from trainer.scoring.groups import GroupedScore, by_group
from trainer.scoring.scores import FittedScore
from trainer.settings.image import ImageSettings

ScoreFn = Callable[[tf.Tensor, Tensors], tf.Tensor]
"""Pixels [B, H, W, C] and the outputs of `autoencode` for them -> score [B]."""
_IMAGE_BYTES = tf.TensorSpec([None], tf.string, IMAGE_BYTES)
_RATE_RANGE = "false_alarm_rate must lie between 0 and 1"
_SMALLEST = 1e-12
_NUMBER = "number_of_group"
_RATE = tf.TensorSpec([None], tf.float32, FALSE_ALARM_RATE)


class ServedModel(EvaluatedModel):
    """A trained model with its score, its threshold and the held-out scores, ready for TensorFlow Serving."""

    def __init__(
        self,
        trained: Any,
        *,
        latent_dim: int,
        image: ImageSettings,
        score: FittedScore | GroupedScore,
        calibration: CalibrationRecord,
        held_out_scores: Sequence[npt.NDArray[np.float32]],
        test_images: int,
        compared_scores: Mapping[Any, ScoreFn] | None = None,
    ) -> None:
        """`trained`: a loaded TrainedModel; `compared_scores` become a signature.

        The gate measures the model on `test_images` images.

        `held_out_scores` [n] must ascend; there is one array for each group, or for all images if there are no groups.
        `calibration` must have a pixel threshold.
        """
        assert calibration.pixel_threshold is not None
        map_once = traced_once(score.anomaly_map)
        super().__init__(
            read=examples_reader(trained.decode_pixels, image),
            autoencode=trained.autoencode,
            verdict=lambda pixels, outputs: self._verdicts(pixels, outputs),
            anomaly_map=map_once,
            mean_image=trained.mean_image,
            image=image,
            probed_share=share_to_probe(test_images, image),
            tracked=(trained, score, dict(compared_scores or {})),
        )
        self.trained = trained
        self._latent_dim = latent_dim
        self._score = score
        self._map_of_score = map_once
        self._verdicts = traced_once(lambda pixels, outputs: self._judge(score(pixels, outputs), outputs))
        self._compared_scores = dict(compared_scores or {})
        self._threshold = _constant(calibration.threshold, "threshold")
        self._pixel_threshold = _constant(max(calibration.pixel_threshold, _SMALLEST), "pixel_threshold")
        self._smallest_region = _constant(calibration.smallest_region_percent / 100.0, "smallest_region")
        self._held_out = [
            tf.Variable(scores, trainable=False, dtype=tf.float32, name="held_out_scores") for scores in held_out_scores
        ]
        if hasattr(trained, "autoencode_one"):  # not if an older version trained it, or for too many tiles
            image_spec = tf.TensorSpec([1, *trained.mean_image.shape], tf.float32, "image")
            self.one_image = tf.function(self._everything_of_one, input_signature=[image_spec], autograph=False)

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def serving_default(self, image_bytes: tf.Tensor) -> Tensors:
        """Encoded images [B] -> error, score, threshold, p_value [B] float32 and is_anomaly [B] int64.

        If there are groups, also group [B] string.
        """
        return self._of_large_files(self._scores, image_bytes)

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def reconstruct(self, image_bytes: tf.Tensor) -> Tensors:
        """As `locate`, with reconstruction [B, H, W, C], error_map [B, H, W] and latent [B, Z]."""
        return self._of_files(self._everything, image_bytes)

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def locate(self, image_bytes: tf.Tensor) -> Tensors:
        """As `serving_default`, with anomaly_map, anomaly_mask [B, H, W], is_padded and smallest_region [B]."""
        return self._of_large_files(self._located, image_bytes)

    @tf.function(input_signature=[_IMAGE_BYTES, _RATE], autograph=False)
    def score_at(self, image_bytes: tf.Tensor, false_alarm_rate: tf.Tensor) -> Tensors:
        """As `serving_default`, with a rate per image [B]; a rate that needs more held-out images gives no alarm.

        Fails for a rate outside (0, 1).
        """
        is_rate = (false_alarm_rate > 0.0) & (false_alarm_rate < 1.0)
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(is_rate), [_RATE_RANGE, false_alarm_rate])]):
            scores = self._of_large_files(self._scores_and_number, image_bytes)
        number = scores.pop(_NUMBER)
        threshold = self._by_group(number, lambda held_out: thresholds_at(held_out, false_alarm_rate))
        return {**scores, THRESHOLD: threshold, IS_ANOMALY: _is_anomaly(scores[SCORE], threshold)}

    @tf.function(input_signature=[_IMAGE_BYTES], autograph=False)
    def all_scores(self, image_bytes: tf.Tensor) -> Tensors:
        """Encoded images [B] -> every compared score [B] by its name."""
        return self._of_files(self._compared, image_bytes)

    def signatures(self) -> dict[str, Any]:
        """All signatures by name; those for pixels and latents take their shapes from the model."""
        image = tf.TensorSpec([None, *self._mean_image.shape], tf.float32, "image")
        latent = tf.TensorSpec([None, self._latent_dim], tf.float32, LATENT)
        bodies = {
            "pixels": (lambda image: in_portions(self._everything, image, self._image), image),
            "encode": (lambda image: {LATENT: self.trained.encode(image)}, image),
            "decode": (lambda latent: {RECONSTRUCTION: self.trained.decode(latent)}, latent),
        }
        functions = {
            name: tf.function(body, autograph=False).get_concrete_function(spec)
            for name, (body, spec) in bodies.items()
        }
        return {
            SCORE_SIGNATURE: self.serving_default,
            RECONSTRUCT_SIGNATURE: self.reconstruct,
            LOCATE_SIGNATURE: self.locate,
            SCORE_AT_SIGNATURE: self.score_at,
            EXAMPLES_SIGNATURE: self.examples,
            **functions,
            **({ALL_SCORES_SIGNATURE: self.all_scores} if self._compared_scores else {}),
        }

    def _of_files(self, compute: Callable[[tf.Tensor], Tensors], image_bytes: tf.Tensor) -> Tensors:
        """What `compute` gives for the pixels of encoded images [B]."""
        return in_portions(lambda encoded: compute(self.trained.decode_pixels(encoded)), image_bytes, self._image)

    def _of_large_files(self, compute: Callable[[tf.Tensor, Tensors], Tensors], image_bytes: tf.Tensor) -> Tensors:
        """What `compute` gives for the pixels of encoded images [B] and the model's outputs for them.

        With tiles, the pixels are `pixel_bytes`, and the outputs lack the reconstruction, unless the score needs it.
        """
        trained = self.trained
        ungrouped = self._score.ungrouped if isinstance(self._score, GroupedScore) else self._score
        if ungrouped.sees_reconstruction or not hasattr(trained, "decode_to_bytes"):
            return self._of_files(lambda pixels: compute(pixels, trained.autoencode(pixels)), image_bytes)

        def of_bytes(encoded: tf.Tensor) -> Tensors:
            values = trained.decode_to_bytes(encoded)
            return compute(values, trained.errors(values))

        return in_portions(of_bytes, image_bytes, self._image)

    def _compared(self, pixels: tf.Tensor) -> Tensors:
        outputs = self.trained.autoencode(pixels)
        return {name: score(pixels, outputs) for name, score in self._compared_scores.items()}

    def _everything_of_one(self, image: tf.Tensor) -> Tensors:
        """What `autoencoder export` converts: the outputs of `reconstruct` for pixels [1, H, W, C]."""
        pixels = within(image, self._image)
        return self._all_of(pixels, self.trained.autoencode_one(pixels))

    def _everything(self, pixels: tf.Tensor) -> Tensors:
        pixels = within(pixels, self._image)
        return self._all_of(pixels, self.trained.autoencode(pixels))

    def _all_of(self, pixels: tf.Tensor, outputs: Tensors) -> Tensors:
        return {
            **self._located(pixels, outputs),
            RECONSTRUCTION: outputs[RECONSTRUCTION],
            LATENT: outputs[LATENT],
            ERROR_MAP: full_size_map(pixels, outputs),
        }

    def anomaly_map(self, pixels: tf.Tensor, outputs: Tensors) -> tf.Tensor:
        """[B, H, W], in multiples of the pixel threshold."""
        map_of_score = self._score.anomaly_map if _is_one(pixels) else self._map_of_score
        return map_of_score(pixels, outputs) / self._pixel_threshold

    def _located(self, pixels: tf.Tensor, outputs: Tensors) -> Tensors:
        anomaly_map = self.anomaly_map(pixels, outputs)
        images = tf.shape(anomaly_map)[:1]
        return {
            **self._scores(pixels, outputs),
            ANOMALY_MAP: anomaly_map,
            ANOMALY_MASK: tf.cast((anomaly_map > 1.0) | ~tf.math.is_finite(anomaly_map), tf.uint8),
            IS_PADDED: tf.fill(images, tf.constant(int(self._image.fit == "pad"), tf.int64)),
            SMALLEST_REGION: tf.fill(images, self._smallest_region),
        }

    def _scores(self, pixels: tf.Tensor, outputs: Tensors) -> Tensors:
        is_one = _is_one(pixels)
        return {
            ERROR: error_of(pixels, outputs),
            **(self._judge(self._score(pixels, outputs), outputs) if is_one else self._verdicts(pixels, outputs)),
        }

    def _judge(self, score: tf.Tensor, outputs: Tensors) -> Tensors:
        comparable = tf.where(tf.math.is_finite(score), score, float("inf"))
        judged = {
            SCORE: score,
            THRESHOLD: tf.fill(tf.shape(score), self._threshold),
            P_VALUE: self._by_group(self._number_of_group(outputs), lambda held_out: p_values(held_out, comparable)),
            IS_ANOMALY: _is_anomaly(score, self._threshold),
        }
        if isinstance(self._score, GroupedScore):
            judged[GROUP] = tf.gather(tf.constant(self._score.groups.names), self._score.group_of(outputs))
        return judged

    def _scores_and_number(self, pixels: tf.Tensor, outputs: Tensors) -> Tensors:
        return {**self._scores(pixels, outputs), _NUMBER: self._number_of_group(outputs)}

    def _number_of_group(self, outputs: Tensors) -> tf.Tensor:
        """[B] int32; 0 if there are no groups."""
        if isinstance(self._score, GroupedScore):
            return self._score.group_of(outputs)
        return tf.zeros(tf.shape(outputs[LATENT])[:1], tf.int32)

    def _by_group(self, number: tf.Tensor, of_held_out: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """[B]: `of_held_out`, a function of held-out scores [n], for those of each image's group."""
        return by_group(number, [partial(of_held_out, held_out) for held_out in self._held_out])


def _is_one(pixels: tf.Tensor) -> bool:
    """Whether this is the function for a single image, which other runtimes need without operations for batches."""
    return bool(pixels.shape[0] == 1)


def _constant(value: float, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, dtype=tf.float32, name=name)


def _is_anomaly(score: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """[B] int64; a score that is not finite is an anomaly."""
    return tf.cast((score > threshold) | ~tf.math.is_finite(score), tf.int64)


def export_served(model: ServedModel, folder: str, *, warmup_image: bytes) -> None:
    """Write the SavedModel and its warm-up requests."""
    tf.saved_model.save(model, folder, signatures=model.signatures())
    tf.io.gfile.makedirs(f"{folder}/{WARMUP_FILE.rpartition('/')[0]}")
    with tf.io.TFRecordWriter(f"{folder}/{WARMUP_FILE}") as writer:
        for signature in (SCORE_SIGNATURE, LOCATE_SIGNATURE, RECONSTRUCT_SIGNATURE):
            writer.write(_warmup_request(signature, warmup_image).SerializeToString())


def _warmup_request(signature: str, image: bytes) -> Any:
    request = predict_pb2.PredictRequest(
        model_spec=model_pb2.ModelSpec(signature_name=signature),
        inputs={IMAGE_BYTES: tf.make_tensor_proto([image])},
    )
    return prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
