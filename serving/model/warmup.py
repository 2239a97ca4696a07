"""Replays the warm-up requests that the Trainer stored with the model, before a version is served."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from runtime.errors import UserError
from schema.artifacts import WARMUP_FILE
from serving.errors import ServingError
from serving.model.prediction import Predictor
from serving.model.tensor_protos import request_from_proto

MAX_WARMUP_REQUESTS = 1000
"""TensorFlow Serving's limit."""


class WarmupError(UserError):
    """A warm-up request that failed: the version must not be served."""


def replay_warmup(predictor: Predictor, folder: Path) -> int:
    """Run the Predict requests stored in the version `folder` and return their number (0 if there are none).

    Raises WarmupError if one of them fails, since TensorFlow Serving refuses such a version.
    """
    replayed = 0
    for number, log in enumerate(_logs(folder / WARMUP_FILE)):
        if number == MAX_WARMUP_REQUESTS:
            raise WarmupError(f"more than {MAX_WARMUP_REQUESTS} warm-up requests")
        if log.WhichOneof("log_type") != "predict_log":
            raise WarmupError(f"warm-up request {number}: only Predict requests are supported")
        try:
            predictor.predict(request_from_proto(log.predict_log.request))
        except ServingError as error:
            raise WarmupError(f"warm-up request {number}: {error.message}") from None
        replayed += 1
    return replayed


def _logs(path: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    if not path.exists():
        return
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield prediction_log_pb2.PredictionLog.FromString(record)
    except (tf.errors.OpError, DecodeError) as error:
        raise WarmupError(f"{path.name} cannot be read: {error}") from None
