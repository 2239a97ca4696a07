"""Names of the exported model's signatures, inputs and outputs, and the defaults under which it is served."""

from typing import Final

SCORE_SIGNATURE: Final = "serving_default"
RECONSTRUCT_SIGNATURE: Final = "reconstruct"
LOCATE_SIGNATURE: Final = "locate"
"""Like `serving_default`, with the anomaly map and what its regions need."""
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
GROUP: Final = "group"
"""[B] string: the group whose threshold applies; only of models with `evaluation.groups`."""
WARNING: Final = "warning"
"""[B] string: why the score may be wrong, if the image has a size unlike that of any training image, otherwise empty.
This project's server and `autoencoder score` add it to the outputs of signatures with `image_bytes`."""
FALSE_ALARM_RATE: Final = "false_alarm_rate"
RECONSTRUCTION: Final = "reconstruction"
ERROR_MAP: Final = "error_map"
ANOMALY_MAP: Final = "anomaly_map"
"""[B, H, W] float32: the map of the score that decides, in multiples of the pixel threshold."""
ANOMALY_MASK: Final = "anomaly_mask"
"""[B, H, W] uint8: 1 where the anomaly map exceeds 1."""
IS_PADDED: Final = "is_padded"
"""[B] int64: 1 if images are padded to the map's aspect ratio, 0 if they are stretched."""
SMALLEST_REGION: Final = "smallest_region"
"""[B] float32: share of the image's area below which a region of the mask does not count."""
LATENT: Final = "latent"
FEATURE_ERROR: Final = "feature_error"
"""[B, h, w], not negative, of any resolution: the error map of a family that has one of its own, in feature space."""
PIXEL_ERROR: Final = "pixel_error"
"""[B, H, W]: the squared error of each pixel, where the reconstruction of a whole image may be too large to keep."""
ALL_SCORES_SIGNATURE: Final = "all_scores"
"""Every score that `evaluation.score: auto` compared, by name; only in models that it was chosen for."""
EXAMPLES_SIGNATURE: Final = "examples"
"""The Evaluator's signature; only it has the following outputs."""
ERROR_LEVELS: Final = "error_levels"
"""[B, H, W] uint16: the upper 16 bits of the anomaly map's float32, changed so that they keep its order."""
MASK_PIXELS: Final = "mask_pixels"
"""[B, H, W] int8: 0 normal, 1 defective, -1 unknown."""
KL: Final = "kl"
"""[B] in nats; only for families whose latent is a distribution."""
SHUFFLED_ERROR: Final = "shuffled_error"
INSIDE: Final = "inside"
"""Of a model with a region of interest, which pixels lie in it, 1 or 0: [B, H, W]."""
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
