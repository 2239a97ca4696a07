"""The exported model's signatures and their inputs and outputs, for those that write them and those that call them."""

from typing import Final

SCORE_SIGNATURE: Final = "serving_default"
RECONSTRUCT_SIGNATURE: Final = "reconstruct"
SCORE_AT_SIGNATURE: Final = "score_at"
"""As the first, for a false-alarm rate that comes with each image."""
IMAGE_BYTES: Final = "image_bytes"
"""The input that holds encoded image files; the server checks its images before they are decoded."""
ERROR: Final = "error"
SCORE: Final = "score"
THRESHOLD: Final = "threshold"
IS_ANOMALY: Final = "is_anomaly"
P_VALUE: Final = "p_value"
"""At most the rate r for a share of at most r of normal images: alarm where it is at most the rate that you accept."""
FALSE_ALARM_RATE: Final = "false_alarm_rate"
RECONSTRUCTION: Final = "reconstruction"
ERROR_MAP: Final = "error_map"

LATENT: Final = "latent"
EXAMPLES_SIGNATURE: Final = "examples"
"""The one that the Evaluator calls; the following are outputs of it alone."""
ERROR_LEVELS: Final = "error_levels"
"""[B, H, W] uint16: the upper 17 bits of the error map's float32, without the sign."""
MASK_PIXELS: Final = "mask_pixels"
"""[B, H, W] int8: 0 sound, 1 defective, -1 unknown."""
KL: Final = "kl"
"""[B] in nats; of a family whose latent has a distribution."""
SHUFFLED_ERROR: Final = "shuffled_error"
PIXEL_VARIANCE: Final = "pixel_variance"
SSIM: Final = "ssim"
DEVIATION: Final = "deviation"
"""[B]: mean squared difference from the mean training image."""
NOISE_ERRORS: Final = {
    "error_at_noise_5": 0.05,
    "error_at_noise_10": 0.1,
    "error_at_noise_20": 0.2,
    "error_at_noise_40": 0.4,
}
"""Name -> standard deviation of the noise, the range of pixels being 1."""

DEFAULT_MODEL_NAME: Final = "autoencoder"
DEFAULT_GRPC_PORT: Final = 8500
DEFAULT_REST_PORT: Final = 8501
