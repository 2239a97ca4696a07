"""Names of the exported model's signatures and of their inputs and outputs."""

from typing import Final

SCORE_SIGNATURE: Final = "serving_default"
RECONSTRUCT_SIGNATURE: Final = "reconstruct"
SCORE_AT_SIGNATURE: Final = "score_at"
"""Like the first, with a false-alarm rate for each image."""
IMAGE_BYTES: Final = "image_bytes"
"""The input with encoded image files; the server checks them before they are decoded."""
ERROR: Final = "error"
SCORE: Final = "score"
THRESHOLD: Final = "threshold"
IS_ANOMALY: Final = "is_anomaly"
P_VALUE: Final = "p_value"
"""For normal images, P(p_value <= r) <= r: raise an alarm if it is at most the false-alarm rate that you accept."""
FALSE_ALARM_RATE: Final = "false_alarm_rate"
RECONSTRUCTION: Final = "reconstruction"
ERROR_MAP: Final = "error_map"

LATENT: Final = "latent"
EXAMPLES_SIGNATURE: Final = "examples"
"""The signature for the Evaluator; only this one has the outputs below."""
ERROR_LEVELS: Final = "error_levels"
"""[B, H, W] uint16: the upper 17 bits of the error map's float32 without the sign bit."""
MASK_PIXELS: Final = "mask_pixels"
"""[B, H, W] int8: 0 normal, 1 defective, -1 unknown."""
KL: Final = "kl"
"""[B] in nats; only for families whose latent has a distribution."""
SHUFFLED_ERROR: Final = "shuffled_error"
PIXEL_VARIANCE: Final = "pixel_variance"
NOISE_ERRORS: Final = {
    "error_at_noise_5": 0.05,
    "error_at_noise_10": 0.1,
    "error_at_noise_20": 0.2,
    "error_at_noise_40": 0.4,
}
"""Name -> standard deviation of the noise for pixels in [0, 1]."""

DEFAULT_MODEL_NAME: Final = "autoencoder"
DEFAULT_GRPC_PORT: Final = 8500
DEFAULT_REST_PORT: Final = 8501
