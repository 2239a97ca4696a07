"""The `examples` signature: masks, error levels, and probes with noise and shuffled pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from PIL import Image

from trainer.export.evaluated_model import EvaluatedModel, _levels, examples_reader, score_by_error
from trainer.export.probes import probe
from trainer.settings.image import ImageSettings

RANDOM = np.random.default_rng(7)
SIZE = ImageSettings(height_px=16, width_px=16)


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def example(pixels, *, is_anomaly=None, mask=None, image_id=None):
    values = {"image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(pixels)]))}
    if image_id is not None:
        values["image_id"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image_id.encode()]))
    if is_anomaly is not None:
        values["is_anomaly"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[is_anomaly]))
    if mask is not None:
        values["mask"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(mask)]))
    return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()


def decode(encoded):
    def one(data):
        return tf.cast(tf.io.decode_png(data, 1), tf.float32) / 255.0

    return tf.map_fn(one, encoded, fn_output_signature=tf.TensorSpec((16, 16, 1), tf.float32))


def outputs_for(examples, reconstruct=tf.identity, image=SIZE):
    """The outputs of the `examples` signature as arrays."""
    model = EvaluatedModel(
        read=examples_reader(decode, image),
        autoencode=lambda pixels: {"reconstruction": reconstruct(pixels)},
        verdict=score_by_error,
        mean_image=tf.zeros((16, 16, 1)),
        image=image,
        probed_share=1.0,
    )
    return {name: values.numpy() for name, values in model.examples(tf.constant(examples)).items()}


def test_masks_are_defective_normal_or_unknown_and_resized_like_the_image():
    image, mask = RANDOM.integers(0, 256, (16, 16)), np.zeros((32, 32))
    mask[:16, :8] = 255
    examples = [
        example(image, is_anomaly=1, mask=mask),
        example(image, is_anomaly=1),
        example(image, is_anomaly=0),
        example(image),
    ]
    masks = outputs_for(examples)["mask_pixels"]
    expected = np.zeros((16, 16))
    expected[:8, :4] = 1
    assert np.array_equal(masks[0], expected)
    assert [set(one.ravel()) for one in masks[1:]] == [{-1}, {0}, {-1}]


def test_the_mask_of_a_padded_image_is_padded():
    wide = np.full((8, 16), 255)
    padding = ImageSettings(height_px=16, width_px=16, fit="pad")
    examples = [example(RANDOM.integers(0, 256, (16, 16)), is_anomaly=1, mask=wide)]
    [mask] = outputs_for(examples, image=padding)["mask_pixels"]
    assert np.array_equal(mask.sum(axis=1), [0] * 4 + [16] * 8 + [0] * 4)


def test_error_levels_keep_the_order_of_the_error_map():
    images = [RANDOM.integers(0, 256, (16, 16)) for _ in range(4)]
    levels = outputs_for([example(image) for image in images], tf.zeros_like)["error_levels"]
    errors = (np.stack(images) / 255.0) ** 2
    order = np.argsort(errors.ravel())
    assert np.all(np.diff(levels.ravel()[order].astype(int)) >= 0)
    assert len(set(levels.ravel())) > 0.9 * len(set(np.round(errors.ravel(), 7)))


def test_a_batch_may_have_no_image_to_probe(own):
    """TensorFlow's convolutions fail on an empty batch, and a small batch often has no image to probe."""
    layers = [keras.layers.Conv2D(filters, 3, padding="same") for filters in (4, 1)]
    convolutions = keras.Sequential([keras.layers.Input((16, 16, 1)), *layers])

    @tf.function(autograph=False)
    def probed(encoded, pixels):
        return probe(encoded, pixels, convolutions, 0.0)

    errors = probed(*own)
    assert {name: set(np.isnan(values)) for name, values in errors.items()} == dict.fromkeys(errors, {True})
    assert all(len(values) == 40 for values in errors.values())


def test_an_example_without_an_identifier_is_not_probed():
    image = RANDOM.integers(0, 256, (16, 16))
    errors = outputs_for([example(image), example(image, image_id="a.png")])["shuffled_error"]
    assert np.isnan(errors).tolist() == [True, False]


@pytest.fixture(scope="module")
def own():
    """(encoded, pixels) of 40 smooth images."""
    ramps = [np.add.outer(np.arange(16) * a, np.arange(16) * b) for a, b in RANDOM.integers(1, 8, (40, 2))]
    encoded = tf.constant([png(ramp) for ramp in ramps])
    return encoded, decode(encoded)


def test_a_copying_model_reproduces_shuffled_pixels_and_noise(own):
    errors = probe(*own, tf.identity, 1.0)
    assert errors["shuffled_error"].numpy().max() == 0.0
    assert errors["pixel_variance"].numpy() == pytest.approx(own[1].numpy().var(axis=(1, 2, 3)), rel=1e-4)
    bright = own[1].numpy().mean(axis=(1, 2, 3)) > 0.3  # far from the range's end, where noise is clipped
    assert errors["error_at_noise_5"].numpy()[bright].mean() == pytest.approx(0.05**2, rel=0.1)


def test_a_model_that_copies_at_half_resolution_keeps_a_quarter_of_the_variance(own):
    def halved(images):
        return tf.repeat(tf.repeat(tf.nn.avg_pool2d(images, 2, 2, "VALID"), 2, axis=1), 2, axis=2)

    errors = {name: values.numpy().mean() for name, values in probe(*own, halved, 1.0).items()}
    assert 1 - errors["shuffled_error"] / errors["pixel_variance"] == pytest.approx(0.25, abs=0.02)


def test_a_model_that_learned_its_images_does_not_copy_shuffled_ones(own):
    smooth = lambda pixels: tf.nn.avg_pool2d(pixels, 5, 1, "SAME")  # noqa: E731
    own_error = np.mean((own[1] - smooth(own[1])).numpy() ** 2)
    assert probe(*own, smooth, 1.0)["shuffled_error"].numpy().mean() > 2 * own_error


def test_probes_depend_only_on_the_image_and_cover_a_share(own):
    encoded, pixels = own
    blur = lambda images: tf.nn.avg_pool2d(images, 3, 1, "SAME")  # noqa: E731
    together = probe(encoded, pixels, blur, 0.5)
    reversed_ = probe(encoded[::-1], pixels[::-1], blur, 0.5)
    for name, errors in together.items():
        np.testing.assert_allclose(errors.numpy(), reversed_[name].numpy()[::-1], rtol=1e-5)
        assert 8 <= np.isfinite(errors.numpy()).sum() <= 32


def test_error_levels_keep_the_order_of_negative_and_infinite_values():
    values = np.sort(RANDOM.standard_normal(2000)).astype(np.float32)
    values = np.concatenate([[-np.inf, -1e30], values, [1e-30, 1e30, np.inf]]).astype(np.float32)
    values.sort()
    levels = _levels(tf.constant(values)).numpy().astype(int)
    assert np.all(np.diff(levels) >= 0)
    assert len(set(levels)) > 0.5 * len(values)
    assert (levels.min(), levels.max()) == (2**15 - 1 - 0x7F80, 2**15 + 0x7F80)
