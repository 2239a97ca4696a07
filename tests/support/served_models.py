"""Small real SavedModels whose correct outputs are easy to compute, and servers for them."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from serving.server.run import ServerAddress, running_server
from serving.server.settings import ServerSettings

SIZE_PX = 16
THRESHOLD = 0.05
PIXEL_THRESHOLD = 0.2


class HalfPlus(tf.Module):
    """y = x / 2 + b; with b = 2, TensorFlow Serving's own test model."""

    def __init__(self, b: float) -> None:
        super().__init__()
        self.a, self.b = tf.Variable(0.5), tf.Variable(b)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half_plus(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": self.a * x + self.b}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, name="x"),
            tf.TensorSpec([None], tf.float32, name="x2"),
        ]
    )
    def sum_and_quotient(self, x: tf.Tensor, x2: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"sum": x + x2, "quotient": x / x2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text_bytes")])
    def echo(self, text_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"echo_bytes": text_bytes}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int64, name="counts")])
    def total(self, counts: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"total": tf.reduce_sum(counts)}


class MeanImage(tf.Module):
    """A trivial autoencoder: the latent is the mean, the reconstruction an image of that value.

    The error of an image is therefore the variance of its pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threshold = tf.Variable(THRESHOLD)

    def scores(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        mean = tf.reduce_mean(image, axis=[1, 2, 3], keepdims=True)
        reconstruction = tf.zeros_like(image) + mean
        error_map = tf.reduce_mean(tf.square(image - reconstruction), axis=3)
        error = tf.reduce_mean(error_map, axis=[1, 2])
        return {
            "error": error,
            "score": tf.identity(error),
            "threshold": tf.zeros_like(error) + self.threshold,
            "is_anomaly": tf.cast(error > self.threshold, tf.int64),
            "reconstruction": reconstruction,
            "error_map": error_map,
            "latent": tf.reshape(mean, [-1, 1]),
        }

    def maps(self, scores: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            "anomaly_map": scores["error_map"] / PIXEL_THRESHOLD,
            "anomaly_mask": tf.cast(scores["error_map"] > PIXEL_THRESHOLD, tf.uint8),
            "is_padded": tf.zeros_like(scores["is_anomaly"]),
            "smallest_region": tf.zeros_like(scores["error"]),
        }

    def decoded(self, image_bytes: tf.Tensor) -> tf.Tensor:
        def decode(data: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(data, channels=1, dtype=tf.float32, expand_animations=False)
            return tf.image.resize(image, [SIZE_PX, SIZE_PX])

        return tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([SIZE_PX, SIZE_PX, 1], tf.float32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self.scores(self.decoded(image_bytes))
        return {name: scores[name] for name in ("error", "score", "threshold", "is_anomaly")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def reconstruct(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self.scores(self.decoded(image_bytes))
        return {**scores, **self.maps(scores)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def locate(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = self.scores(self.decoded(image_bytes))
        return {
            **{name: scores[name] for name in ("error", "score", "threshold", "is_anomaly")},
            **self.maps(scores),
        }

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE_PX, SIZE_PX, 1], tf.float32, name="image")])
    def pixels(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.scores(image)

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE_PX, SIZE_PX, 1], tf.float32, name="image")])
    def encode(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"latent": self.scores(image)["latent"]}

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="latent")])
    def decode(self, latent: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"reconstruction": tf.zeros([tf.shape(latent)[0], SIZE_PX, SIZE_PX, 1]) + latent[:, :, None, None]}


def _write_half_plus(folder: Path, b: float = 2.0) -> Path:
    module = HalfPlus(b)
    signatures = {
        "serving_default": module.half_plus,
        "two_inputs": module.sum_and_quotient,
        "echo": module.echo,
        "total": module.total,
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def _write_warmup(folder: Path, images: Sequence[bytes], signature_name: str = "serving_default") -> None:
    request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name="any", signature_name=signature_name))
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), dtype=tf.string))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    target = folder / "assets.extra" / "tf_serving_warmup_requests"
    target.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(target)) as writer:
        writer.write(log.SerializeToString())


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, format="PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def write_half_plus() -> Callable[..., Path]:
    """Write y = x / 2 + b as a SavedModel: (folder, b)."""
    return _write_half_plus


@pytest.fixture(scope="session")
def write_warmup() -> Callable[..., None]:
    """Write one warm-up request beside a SavedModel: (folder, images)."""
    return _write_warmup


@pytest.fixture(scope="session")
def png() -> Callable[[np.ndarray[Any, Any]], bytes]:
    """Encode an array of bytes as PNG."""
    return _png


@pytest.fixture(scope="session")
def normal_png() -> bytes:
    """A flat grey image: error 0."""
    return _png(np.full((SIZE_PX, SIZE_PX), 128))


@pytest.fixture(scope="session")
def anomalous_png() -> bytes:
    """Half black, half white: error 0.25."""
    return _png(np.repeat([[0, 255]], SIZE_PX, axis=0).repeat(SIZE_PX // 2, axis=1))


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory, normal_png: bytes) -> Path:
    """A base folder with version 7 of the mean-image autoencoder, including warm-up requests."""
    base = tmp_path_factory.mktemp("image_model")
    module = MeanImage()
    names = ("serving_default", "reconstruct", "locate", "pixels", "encode", "decode")
    tf.saved_model.save(module, str(base / "7"), signatures={name: getattr(module, name) for name in names})
    _write_warmup(base / "7", [normal_png] * 3)
    return base


@pytest.fixture(scope="session")
def half_plus_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder with version 123, zero-padded, of TensorFlow Serving's test model."""
    base = tmp_path_factory.mktemp("half_plus_two")
    _write_half_plus(base / "00000123")
    return base


@pytest.fixture(scope="session")
def settings_for() -> Callable[..., ServerSettings]:
    """Settings for a test server on free ports: (base folder, other settings)."""

    def settings(base: Path, **others: Any) -> ServerSettings:
        return ServerSettings(
            **{"model_base_path": base, "grpc_port": 0, "rest_port": 0, "poll_interval_s": 0.05, **others}
        )

    return settings


@pytest.fixture(scope="session")
def image_server(image_model: Path, settings_for: Callable[..., ServerSettings]) -> Iterator[ServerAddress]:
    """Serves the mean-image autoencoder under the default name."""
    with running_server(settings_for(image_model)) as address:
        yield address


if __name__ == "__main__":  # the model for the conformance tests of TensorFlow Serving itself
    _write_half_plus(Path(sys.argv[1]))
