"""What an image file shows through every entrance: ingestion, the client, and the model of score and server."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from images.decoding import UnreadableImageError, as_pixels, as_viewed, declared_size
from images.stored import from_file_bytes
from trainer.data.decoding import decode_images
from trainer.settings.image import ImageSettings

ENTRANCES = (lambda content: from_file_bytes(content).encoded, as_viewed, lambda content: as_pixels(content).encoded)


def in_graph(encoded, *, channels=3):
    """What the preprocessing graph decodes."""
    height_px, width_px = tf.io.decode_image(encoded, expand_animations=False).shape[:2]
    # The settings allow no smaller image, and a test no larger one than it needs.
    settings = ImageSettings.model_construct(height_px=height_px, width_px=width_px, channels=channels, fit="stretch")
    return np.round(decode_images(tf.constant([encoded]), settings).numpy()[0] * 255).astype(np.uint8)


def seen(content, *, channels=3):
    """The pixels that every entrance shows: [H, W, C]."""
    declared_size(content)
    first, *others = (in_graph(entrance(content), channels=channels) for entrance in ENTRANCES)
    for other in others:
        assert np.array_equal(first, other)
    return first


def seen_grey(content):
    return seen(content, channels=1)[:, :, 0]


def by_pillow(content, mode="RGB"):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert(mode))


def refusal(content):
    """The reason, the same from every entrance."""
    reasons = set()
    for entrance in ENTRANCES:
        with pytest.raises(UnreadableImageError) as raised:
            entrance(content)
        reasons.add(str(raised.value))
    try:  # which the server and score call first
        declared_size(content)
    except UnreadableImageError as error:
        reasons.add(str(error))
    [reason] = reasons
    return reason


def seen_or_refused(content):
    """The pixels, or the reason of the refusal; fails unless all entrances agree."""
    try:
        ENTRANCES[0](content)
    except UnreadableImageError:
        return refusal(content)
    return seen(content)
