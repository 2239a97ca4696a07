"""The names of an example's features and of its splits: their one home."""

from typing import Final

IMAGE: Final = "image"
"""The image file's own bytes; arrays are stored as PNG."""
IMAGE_ID: Final = "image_id"
"""Stable, unique, URI-like: a relative path, or `digits/00042`."""
LABEL: Final = "label"
"""Class or folder name, empty if none."""
IS_ANOMALY: Final = "is_anomaly"
"""0 normal, 1 anomalous, absent when unknown."""
UNKNOWN: Final = -1
"""Stands for an unknown `is_anomaly`, or for the pixels of an unknown mask, where a number is needed."""
MASK: Final = "mask"
"""Where the defect is: a one-channel PNG of the image's size, above 0 on defective pixels; absent when unknown.

Normal images have none: where `is_anomaly` is 0, no pixel is defective."""
HEIGHT_PX: Final = "height_px"
WIDTH_PX: Final = "width_px"
CHANNELS: Final = "channels"
"""1 grey, 3 RGB."""
MEAN_INTENSITY: Final = "mean_intensity"
"""Mean over all pixels and channels, in [0, 1]."""
CONTRAST: Final = "contrast"
"""Standard deviation over all pixels and channels, in [0, 0.5]."""

STATISTICS_FEATURES: Final = (LABEL, IS_ANOMALY, HEIGHT_PX, WIDTH_PX, CHANNELS, MEAN_INTENSITY, CONTRAST)
"""What StatisticsGen looks at: never the image bytes or the identifiers, whose top-k lists mean nothing."""

TRAIN: Final = "train"
EVAL: Final = "eval"
TEST: Final = "test"
SPLITS: Final = (TRAIN, EVAL, TEST)

# What Transform's graph gives for images:
NORMALISED: Final = "image"
"""[B, H, W, C] float32: what the encoder is fed, (pixels - offset) / scale with pixels in [0, 1]."""
OFFSET: Final = "pixel_offset"
"""[B, C] float32, the same in every row: tf.Transform's constants."""
SCALE: Final = "pixel_scale"
"""[B, C] float32, the same in every row; never 0."""
