"""What serving needs to know of an exported model: its doors, and the files beside it."""

from typing import Final

SCORE_SIGNATURE: Final = "serving_default"
RECONSTRUCT_SIGNATURE: Final = "reconstruct"
IMAGE_BYTES: Final = "image_bytes"
"""The input that holds encoded image files; the server checks its images before they are decoded."""
ERROR: Final = "error"
SCORE: Final = "score"
THRESHOLD: Final = "threshold"
IS_ANOMALY: Final = "is_anomaly"
RECONSTRUCTION: Final = "reconstruction"
ERROR_MAP: Final = "error_map"

WARMUP_REQUESTS: Final = "assets.extra/tf_serving_warmup_requests"
"""TFRecords of PredictionLog, where TensorFlow Serving looks for them."""
SAVED_MODEL_FILE: Final = "saved_model.pb"

DEFAULT_MODEL_NAME: Final = "autoencoder"
DEFAULT_GRPC_PORT: Final = 8500
DEFAULT_REST_PORT: Final = 8501
