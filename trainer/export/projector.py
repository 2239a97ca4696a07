"""Data for TensorBoard's projector: held-out images as points in the latent space, with labels."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector

from runtime.tfrecords import files_of
from schema import features
from trainer.data.dataset import Images, ImageSet, PixelConstants
from trainer.families.autoencoder import Autoencoder

_POINTS = 1024
_SPRITE_PX = 2048
"""Longest side of the sheet of thumbnails, in pixels."""


def write_projector(
    folder: str, autoencoder: Autoencoder, held_out: ImageSet, constants: PixelConstants, patterns: Sequence[str]
) -> None:
    """Write latents, labels and thumbnails of the first held-out images or tiles, whose records match `patterns`."""
    images = held_out.sample(_POINTS)
    latents = np.concatenate(
        [autoencoder.encoder(part) for part in np.array_split(images, math.ceil(len(images) / 64))]
    )
    sprite, thumbnail_px = sprite_of(np.asarray(constants.to_pixels(images)))
    tf.io.gfile.makedirs(folder)
    _write(f"{folder}/latents.tsv", ["\t".join(f"{number:.5g}" for number in latent) for latent in latents])
    shown = held_out.sources[: len(images)]
    labels = labels_of(patterns, int(shown.max()) + 1)
    _write(f"{folder}/labels.tsv", [labels[source] or "no label" for source in shown])
    with tf.io.gfile.GFile(f"{folder}/sprite.png", "wb") as file:
        sprite.save(file, "PNG")
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="latent", tensor_path="latents.tsv", metadata_path="labels.tsv")
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend(thumbnail_px)
    _write(f"{folder}/projector_config.pbtxt", [str(config)])


def sprite_of(pixels: Images) -> tuple[Image.Image, tuple[int, int]]:
    """A square sheet of images [N, H, W, C] in [0, 1], row by row, and the (width, height) of a thumbnail."""
    side = math.ceil(math.sqrt(len(pixels)))
    height, width = pixels.shape[1:3]
    scale = min(1.0, _SPRITE_PX / (side * max(height, width)))
    size = max(1, int(width * scale)), max(1, int(height * scale))
    sheet = Image.new("RGB", (side * size[0], side * size[1]))
    for index, image in enumerate(np.round(pixels * 255.0).clip(0, 255).astype(np.uint8)):
        thumbnail = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).resize(size)
        sheet.paste(thumbnail, (index % side * size[0], index // side * size[1]))
    return sheet, size


def labels_of(patterns: Sequence[str], count: int) -> list[str]:
    """Labels of the first records, in the order in which the images are loaded; empty if there is none."""
    records = next(iter(tf.data.TFRecordDataset(files_of(patterns)).batch(count)))
    spec = {features.LABEL: tf.io.FixedLenFeature([], tf.string, default_value="")}
    return [label.decode(errors="replace") for label in tf.io.parse_example(records, spec)[features.LABEL].numpy()]


def _write(path: str, lines: Sequence[str]) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        file.write("\n".join(lines) + "\n")
