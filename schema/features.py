"""Names of the features of an example and of the splits."""

from typing import Final
from urllib.parse import quote, unquote

IMAGE: Final = "image"
"""The bytes of the image file; arrays are stored as PNG."""
IMAGE_ID: Final = "image_id"
"""Stable, unique and URI-like, such as a relative path or `digits/00042`."""
LABEL: Final = "label"
"""Class or folder name, empty if none."""
GROUP: Final = "group"
"""Variant of the product, for `evaluation.groups: group`; absent when unknown."""
IS_ANOMALY: Final = "is_anomaly"
"""0 normal, 1 anomalous, absent when unknown."""
UNKNOWN: Final = -1
"""Stands for an unknown `is_anomaly`, or for the pixels of an unknown mask, where a number is needed."""
MASK: Final = "mask"
"""A one-channel PNG of the image's size, greater than 0 on defective pixels; absent when unknown.

Normal images need none: if `is_anomaly` is 0, no pixel is defective."""
HEIGHT_PX: Final = "height_px"
WIDTH_PX: Final = "width_px"
CHANNELS: Final = "channels"
"""1 grey, 3 RGB."""
MEAN_INTENSITY: Final = "mean_intensity"
"""Mean over all pixels and channels, in [0, 1]."""
CONTRAST: Final = "contrast"
"""Standard deviation over all pixels and channels, in [0, 0.5]."""

STATISTICS_FEATURES: Final = (LABEL, IS_ANOMALY, HEIGHT_PX, WIDTH_PX, CHANNELS, MEAN_INTENSITY, CONTRAST)
"""Features with statistics; statistics of image bytes and identifiers would be meaningless."""

TRAIN: Final = "train"
EVAL: Final = "eval"
TEST: Final = "test"
SPLITS: Final = (TRAIN, EVAL, TEST)

# Outputs of Transform's graph:
NORMALISED: Final = "image"
"""[B, H, W, C] float32: the encoder's input, (pixels - offset) / scale with pixels in [0, 1]."""
OFFSET: Final = "pixel_offset"
"""[B, C] float32, the same in every row: constants of tf.Transform."""
SCALE: Final = "pixel_scale"
"""[B, C] float32, the same in every row; never 0."""
LEVELS: Final = "pixel_levels"
"""[B, 2] float32, the same in every row: the values in files that become 0 and 1, in levels of the image's depth."""


def shown_name(image_id: str) -> str:
    """The image's name as people know it, without percent-encoding, if it can be printed in one line."""
    name = unquote(image_id, errors="replace")
    return name if name.isprintable() else image_id


def printable(text: str, kept: str = "\n\t") -> str:
    """Text for a terminal, which no name in it can control: what cannot be printed, but for `kept`, percent-encoded."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else quote(c, errors="surrogateescape") for c in text)
