"""Names of the exported model's signatures, inputs and outputs, and the defaults under which it is served."""

from typing import Final

SCORE_SIGNATURE: Final = "serving_default"
RECONSTRUCT_SIGNATURE: Final = "reconstruct"
SCORE_AT_SIGNATURE: Final = "score_at"
"""Like `serving_default`, with a false-alarm rate for each image."""
IMAGE_BYTES: Final = "image_bytes"
"""The input for encoded image files, which the server checks before they are decoded."""
ERROR: Final = "error"
SCORE: Final = "score"
THRESHOLD: Final = "threshold"
IS_ANOMALY: Final = "is_anomaly"
P_VALUE: Final = "p_value"
"""At most r for a share of at most r of normal images: raise an alarm if it is at most the rate you accept."""
FALSE_ALARM_RATE: Final = "false_alarm_rate"
RECONSTRUCTION: Final = "reconstruction"
ERROR_MAP: Final = "error_map"
LATENT: Final = "latent"
FEATURE_ERROR: Final = "feature_error"
"""[B, h, w], not negative, of any resolution: the error map of a family that has one of its own, in feature space."""
ALL_SCORES_SIGNATURE: Final = "all_scores"
"""Every score that `evaluation.score: auto` compared, by name; only in models that it was chosen for."""
EXAMPLES_SIGNATURE: Final = "examples"
"""The Evaluator's signature; only it has the following outputs."""
ERROR_LEVELS: Final = "error_levels"
"""[B, H, W] uint16: the upper 17 bits of the error map's float32 without the sign bit."""
MASK_PIXELS: Final = "mask_pixels"
"""[B, H, W] int8: 0 normal, 1 defective, -1 unknown."""
KL: Final = "kl"
"""[B] in nats; only for families whose latent is a distribution."""
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
"""Name -> standard deviation of the noise, for pixels in [0, 1]."""

DEFAULT_MODEL_NAME: Final = "autoencoder"
DEFAULT_GRPC_PORT: Final = 8500
DEFAULT_REST_PORT: Final = 8501
