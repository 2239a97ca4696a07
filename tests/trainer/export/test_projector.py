"""The projector's three files describe the same images in the same order."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins import projector
from training_run import SHAPE, UNIT, image_set, plain_autoencoder

from trainer.export.projector import sprite_of, write_projector


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for label in ("cat", "dog", None, "cat", "dog"):
            value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[label.encode()] if label else []))
            feature = {"label": value} if label else {}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


def test_latents_labels_and_thumbnails_agree(records, tmp_path):
    autoencoder, images = plain_autoencoder(), image_set(5)
    write_projector(str(tmp_path / "projector"), autoencoder, images, UNIT, [records])
    folder = tmp_path / "projector"
    latents = np.loadtxt(folder / "latents.tsv", delimiter="\t")
    assert latents == pytest.approx(np.asarray(autoencoder.encoder(images.images)), rel=1e-4, abs=1e-6)
    assert (folder / "labels.tsv").read_text().split("\n")[:5] == ["cat", "dog", "no label", "cat", "dog"]
    sprite = np.asarray(Image.open(folder / "sprite.png"))[..., 0]
    assert sprite[4:8, 4:8] == pytest.approx(np.round(images.images[4, ..., 0] * 255))
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), projector.ProjectorConfig())
    assert list(config.embeddings[0].sprite.single_image_dim) == [SHAPE[1], SHAPE[0]]


def test_a_sheet_of_large_images_is_small_enough_for_browsers():
    sheet, size = sprite_of(np.zeros((100, 500, 250, 3), np.float32))
    assert max(sheet.size) <= 2048
    assert size == (102, 204)
