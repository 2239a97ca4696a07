"""EfficientNet-Lite recognises photographs, and its blocks have the published strides and widths."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from trainer.backbones.efficientnet_lite import EfficientNetLite, strides
from trainer.backbones.pretrained import weights_file
from trainer.backbones.torch_weights import read_weights

VERSIONS = (0, 1, 2)
PALACE, DAISY, HONEYCOMB = 698, 985, 599
"""Classes of ImageNet, which has no dahlia."""
LITE0 = {2: (4, 24), 4: (8, 40), 7: (16, 80), 10: (16, 112), 14: (32, 192), 15: (32, 320)}
"""Stride and channels of each stage's last block in the authors' table."""


@pytest.fixture(scope="module")
def weights():
    return {version: read_weights(weights_file(f"efficientnet-lite{version}")) for version in VERSIONS}


def photographs(size_px):
    """scikit-learn's photographs of a temple and a dahlia: the central square, [2, size, size, 3] in [0, 1]."""
    found = []
    for image in load_sample_images().images:
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        square = Image.fromarray(image[top : top + side, left : left + side])
        found.append(np.asarray(square.resize((size_px, size_px), Image.Resampling.BICUBIC), np.float32) / 255)
    return np.stack(found)


def best_classes(weights, features):
    """The network's head in NumPy: convolution, normalisation, ReLU6, mean over positions, classifier."""
    gain = weights["_bn1.weight"] / np.sqrt(weights["_bn1.running_var"] + 1e-3)
    wide = features @ weights["_conv_head.weight"][:, :, 0, 0].T
    wide = np.clip((wide - weights["_bn1.running_mean"]) * gain + weights["_bn1.bias"], 0, 6)
    scores = wide.mean(axis=(1, 2)) @ weights["_fc.weight"].T + weights["_fc.bias"]
    return scores.argsort(axis=1)[:, ::-1]


@pytest.mark.parametrize(("version", "dahlia"), [(0, DAISY), (1, DAISY), (2, HONEYCOMB)])
def test_the_classes_of_two_photographs_are_right(weights, version, dahlia):
    """Of 1,000: the temple is a palace; the dahlia is a daisy or, by its pattern, a honeycomb."""
    network = EfficientNetLite(version, weights[version])
    ranked = best_classes(weights[version], network.blocks(photographs(224))[-1].numpy())
    assert ranked[:, 0].tolist() == [PALACE, dahlia]


@pytest.mark.parametrize(("height", "width"), [(224, 224), (97, 130)])
def test_blocks_have_the_published_strides_and_channels(weights, height, width):
    outputs = EfficientNetLite(0, weights[0]).blocks(tf.zeros((2, height, width, 3)))
    assert len(outputs) == 16
    for block, (stride, channels) in LITE0.items():
        assert outputs[block].shape == (2, -(-height // stride), -(-width // stride), channels)


def test_strides_are_those_of_the_outputs(weights):
    for version in VERSIONS:
        outputs = EfficientNetLite(version, weights[version]).blocks(tf.zeros((1, 64, 64, 3)))
        assert strides(version) == [64 // output.shape[1] for output in outputs]
        assert f"_blocks.{len(outputs)}._bn1.weight" not in weights[version]


def test_a_network_that_ends_early_has_the_same_outputs_and_fewer_weights(weights):
    pixels = photographs(64)
    whole, part = EfficientNetLite(0, weights[0]), EfficientNetLite(0, weights[0], block_count=11)
    for expected, found in zip(whole.blocks(pixels)[:11], part.blocks(pixels), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert sum(variable.shape.num_elements() for variable in part.variables) < 700_000
    assert not part.trainable_variables
