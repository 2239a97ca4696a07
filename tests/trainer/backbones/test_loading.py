"""Backbones of every kind give the maps that their network gives, alone and inside an exported model."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from runtime import object_store
from trainer.backbones.errors import BackboneError
from trainer.backbones.loading import load_backbone

LITE = "efficientnet-lite0"
NO_TOP = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
"""The name under which Keras caches the weights of MobileNetV2."""


def pixels(*shape):
    return np.random.default_rng(3).uniform(size=shape).astype(np.float32)


def small_network(*, size=None, channels=3, rescaled=False):
    """Layers at strides 2, 4, 4, 8 and 16, with a padding at stride 8 that is no layer to use."""
    image = keras.Input((size, size, channels))
    maps = keras.layers.Rescaling(1 / 255.0, name="rescaled")(image) if rescaled else image
    maps = keras.layers.Conv2D(4, 3, 2, "same", name="two")(maps)
    maps = keras.layers.Conv2D(5, 3, 2, "same", name="four")(maps)
    maps = keras.layers.BatchNormalization(name="four_normal")(maps)
    maps = keras.layers.Conv2D(6, 3, 2, "same", name="eight")(maps)
    maps = keras.layers.ZeroPadding2D(name="padded")(maps)
    maps = keras.layers.Conv2D(7, 3, 2, "valid", name="sixteen")(maps)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D(name="mean")(maps))


def outputs_of(model, layers, values):
    return [
        value.numpy() for value in keras.Model(model.input, [model.get_layer(name).output for name in layers])(values)
    ]


def export(network, path, signature):
    tf.saved_model.save(network, str(path), signatures=network.outputs.get_concrete_function(signature))


class Tokens(tf.Module):
    """Patches of 4×4 pixels as tokens, after two of another kind, as a transformer returns them."""

    @tf.function
    def outputs(self, pixel_values):
        image = tf.transpose(pixel_values, (0, 2, 3, 1))
        patches = tf.nn.space_to_depth(image, 4)
        tokens = tf.reshape(patches, (tf.shape(image)[0], -1, 48))
        classes = tf.fill((tf.shape(image)[0], 2, 48), -1.0)
        return {"tokens": tf.concat([classes, tokens], 1), "pooled": tf.reduce_mean(tokens, 1)}


class Pyramid(tf.Module):
    """The image at strides 2 and 4, times a variable."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(3.0)

    @tf.function
    def outputs(self, image):
        maps = {name: tf.nn.avg_pool2d(image, size, size, "SAME") * self.factor for name, size in (("b", 2), ("a", 4))}
        return maps | {"mean": tf.reduce_mean(image, (1, 2))}


class Holder(tf.Module):
    """A model as the Trainer exports it, with a backbone inside."""

    def __init__(self, name, shape):
        super().__init__()
        self.backbone = load_backbone(name)
        self.shape = shape

    def export(self, path):
        maps = tf.function(lambda image: {str(n): value for n, value in enumerate(self.backbone(image))})
        tf.saved_model.save(self, str(path), signatures=maps.get_concrete_function(tf.TensorSpec((None, *self.shape))))


@pytest.fixture
def keras_path(tmp_path):
    path = tmp_path / "network.keras"
    small_network().save(path)
    return path


@pytest.fixture
def pyramid_path(tmp_path):
    export(Pyramid(), tmp_path / "pyramid", tf.TensorSpec((None, None, None, 3), name="image"))
    return tmp_path / "pyramid"


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_default_gives_maps_at_strides_4_8_and_16_of_the_images_size():
    backbone = load_backbone(LITE)
    assert backbone.layers == ("block2", "block4", "block10")
    maps = backbone(pixels(2, 96, 64, 3))
    assert [features.shape for features in maps] == [(2, 24, 16, 24), (2, 12, 8, 40), (2, 6, 4, 112)]
    assert {features.dtype for features in maps} == {tf.float32}


@pytest.mark.parametrize("version", [1, 2])
def test_the_larger_versions_have_maps_at_the_same_strides(version):
    maps = load_backbone(f"efficientnet-lite{version}")(pixels(1, 64, 64, 3))
    assert [features.shape[1] for features in maps] == [16, 8, 4]


def test_layers_come_in_the_order_of_their_names():
    every = load_backbone(LITE, [f"block{index}" for index in range(16)])(pixels(1, 64, 64, 3))
    some = load_backbone(LITE, ["block7", "block0"])(pixels(1, 64, 64, 3))
    assert_same(some, [every[7], every[0]])


def test_grey_images_count_as_colour_images_with_equal_channels():
    grey = pixels(2, 64, 64, 1)
    backbone = load_backbone(LITE)
    assert_same(backbone(grey), backbone(np.repeat(grey, 3, axis=-1)))


def test_a_record_identifies_the_default():
    record = load_backbone(LITE).record
    assert record["name"] == LITE
    assert record["layers"] == ["block2", "block4", "block10"]
    assert record["licence"] == "Apache-2.0"
    [(file, sha256)] = record["sha256"].items()
    assert (file, sha256[:8]) == ("efficientnet-lite0-57934424.pth", "57934424")
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_keras_file_gives_the_last_layers_at_strides_4_8_and_16(tmp_path, suffix):
    model, path = small_network(), tmp_path / f"network{suffix}"
    model.get_layer("four_normal").set_weights([np.full(5, value) for value in (2.0, 0.5, 0.25, 4.0)])
    model.save(path)
    backbone = load_backbone(str(path))
    assert backbone.layers == ("four_normal", "eight", "sixteen")
    image = pixels(2, 48, 32, 3)
    assert_same(backbone(image), outputs_of(model, backbone.layers, image))
    assert backbone.record["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_keras_file_gives_the_layers_that_are_named(keras_path):
    model, image = keras.models.load_model(keras_path), pixels(1, 32, 32, 3)
    assert_same(load_backbone(str(keras_path), ["sixteen", "two"])(image), outputs_of(model, ["sixteen", "two"], image))
    assert_same(
        load_backbone(str(keras_path), ["two"])(image), [keras.Model(model.input, model.get_layer("two").output)(image)]
    )


def test_a_keras_network_that_rescales_bytes_gets_bytes(tmp_path):
    model, image = small_network(rescaled=True), pixels(1, 32, 32, 3)
    model.save(tmp_path / "network.keras")
    found = load_backbone(str(tmp_path / "network.keras"), ["two"])(image)
    assert_same(found, [keras.Model(model.input, model.get_layer("two").output)(255 * image)])


def test_a_keras_network_for_grey_images_gets_them_unchanged(tmp_path):
    model, image = small_network(channels=1), pixels(1, 32, 32, 1)
    model.save(tmp_path / "grey.keras")
    backbone = load_backbone(str(tmp_path / "grey.keras"))
    assert_same(backbone(image), outputs_of(model, backbone.layers, image))
    with pytest.raises(BackboneError, match="takes images of 1 channels, not of 3"):
        backbone(pixels(1, 32, 32, 3))


def test_a_saved_model_gives_its_maps_by_name(pyramid_path):
    image = pixels(1, 8, 8, 3)
    backbone = load_backbone(str(pyramid_path))
    assert backbone.layers == ("a", "b")
    halves = 3 * image.reshape(1, 4, 2, 4, 2, 3).mean((2, 4))
    quarters = 3 * image.reshape(1, 2, 4, 2, 4, 3).mean((2, 4))
    assert_same(backbone(image), [quarters, halves])
    assert_same(load_backbone(str(pyramid_path), ["b"])(image), [halves])
    assert "saved_model.pb" in backbone.record["sha256"]


@pytest.mark.parametrize("shape", [(None, 3, 24, 24), (None, None, None, None), (1, 3, None, None)])
def test_tokens_of_a_transformer_become_a_map_without_its_class_tokens(tmp_path, shape):
    export(Tokens(), tmp_path / "transformer", tf.TensorSpec(shape, name="pixel_values"))
    backbone = load_backbone(str(tmp_path / "transformer"))
    assert backbone.layers == ("tokens",)
    image = pixels(1, 24, 24, 3)
    patches = image.reshape(1, 6, 4, 6, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(1, 6, 6, 48)
    assert_same(backbone(image), [patches])


def test_a_network_of_keras_applications_scales_pixels_as_keras_does(tmp_path, monkeypatch):
    """The weights are in Keras's cache, as after a first download."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras" / "models").mkdir(parents=True)
    model = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    model.save_weights(tmp_path / ".keras" / "models" / NO_TOP)
    backbone = load_backbone("MobileNetV2")
    image = pixels(1, 64, 64, 3)
    scaled = keras.applications.mobilenet_v2.preprocess_input(255 * image)
    assert_same(backbone(image), outputs_of(model, backbone.layers, scaled))
    assert [features.shape[1] for features in backbone(image)] == [16, 8, 4]
    assert backbone.record["input"]["scaling"]["offset"] == [-1, -1, -1]


def test_without_a_network_the_message_says_where_to_put_the_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(BackboneError, match=rf"download https://\S*/{NO_TOP}, and copy the file into ~/.keras/models"):
        load_backbone("MobileNetV2")


@pytest.mark.parametrize("kind", ["pretrained", "keras", "saved_model"])
def test_an_exported_model_contains_its_backbone(tmp_path, keras_path, pyramid_path, kind):
    name = {"pretrained": LITE, "keras": str(keras_path), "saved_model": str(pyramid_path)}[kind]
    model, image = Holder(name, (32, 32, 1)), pixels(2, 32, 32, 1)
    expected = [features.numpy() for features in model.backbone(image)]
    model.export(tmp_path / "exported")
    keras_path.unlink()
    shutil.rmtree(pyramid_path)
    found = tf.saved_model.load(str(tmp_path / "exported")).signatures["serving_default"](tf.constant(image))
    assert_same([found[str(number)] for number in range(len(expected))], expected)
    assert not model.trainable_variables


def test_a_backbone_can_be_built_inside_a_function():
    built = []

    @tf.function
    def maps(image):
        if not built:  # as for every variable, only the first trace may create it
            built.append(load_backbone(LITE, ["block2"]))
        return built[0](image)

    image = pixels(1, 32, 32, 3)
    assert_same(maps(image), load_backbone(LITE, ["block2"])(image))


def test_a_backbone_is_read_from_an_object_store(s3, keras_path, pyramid_path):
    object_store.upload(s3, pyramid_path.parent, "s3://bucket/backbones")
    for path in (keras_path, pyramid_path):
        remote = load_backbone(f"s3://bucket/backbones/{path.name}")
        assert_same(remote(pixels(1, 32, 32, 3)), load_backbone(str(path))(pixels(1, 32, 32, 3)))
    with pytest.raises(BackboneError, match="there is no backbone 's3://bucket/backbones/absent.keras'"):
        load_backbone("s3://bucket/backbones/absent.keras")


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("efficientnet-lite3", (), "did you mean 'efficientnet-lite2'"),
        ("MobilNetV2", (), "did you mean 'MobileNetV2'"),
        ("/nowhere/network.keras", (), "there is no backbone '/nowhere/network.keras'"),
        (LITE, ("block16",), "has no layer 'block16'; it has block0, .*block15"),
        (LITE, ("block1", "block1"), "repeat one: block1, block1"),
    ],
)
def test_a_name_or_layer_that_does_not_exist_is_an_error_that_lists_what_does(name, layers, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(name, layers)


def test_layers_of_the_users_own_networks_are_checked_too(keras_path, pyramid_path):
    with pytest.raises(BackboneError, match="has no layer 'mean'; it has input_.*, two, four"):
        load_backbone(str(keras_path), ["mean"])
    with pytest.raises(BackboneError, match="has no layer 'mean'; it has a, b"):
        load_backbone(str(pyramid_path), ["mean"])


def test_an_image_of_another_size_than_a_network_takes_is_an_error(tmp_path):
    small_network(size=32).save(tmp_path / "network.keras")
    with pytest.raises(BackboneError, match=r"takes images of \(32, 32\) pixels, not of \(64, 64\)"):
        load_backbone(str(tmp_path / "network.keras"))(pixels(1, 64, 64, 3))
    export(Pyramid(), tmp_path / "fixed", tf.TensorSpec((None, 32, 32, 3), name="image"))
    with pytest.raises(BackboneError, match="takes images of 32×32 pixels, not of 64×64"):
        load_backbone(str(tmp_path / "fixed"))(pixels(1, 64, 64, 3))


def test_tokens_that_form_no_square_are_an_error(tmp_path):
    export(Tokens(), tmp_path / "wide", tf.TensorSpec((None, 3, 32, 96), name="pixel_values"))
    with pytest.raises(BackboneError, match="194 tokens are not a square"):
        load_backbone(str(tmp_path / "wide"))(pixels(1, 32, 96, 3))


@pytest.mark.parametrize("signature", [tf.TensorSpec((None, 7)), tf.TensorSpec((None, 8, 8, 3), tf.uint8)])
def test_a_saved_model_of_something_else_is_an_error_that_describes_it(tmp_path, signature):
    class Other(tf.Module):
        @tf.function
        def outputs(self, values):
            return {"sum": tf.reduce_sum(values)}

    export(Other(), tmp_path / "other", signature)
    with pytest.raises(BackboneError, match=f"takes .*{signature.dtype.name} .* instead of one batch of images"):
        load_backbone(str(tmp_path / "other"))


def test_a_saved_model_without_maps_or_signature_is_an_error(tmp_path):
    class Mean(tf.Module):
        @tf.function
        def outputs(self, image):
            return {"mean": tf.reduce_mean(image, (1, 2))}

    export(Mean(), tmp_path / "mean", tf.TensorSpec((None, 8, 8, 3)))
    with pytest.raises(BackboneError, match=r"returns neither maps .* but \{'mean': \[None, 3\]\}"):
        load_backbone(str(tmp_path / "mean"))
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(BackboneError, match="has no signature 'serving_default' but none"):
        load_backbone(str(tmp_path / "empty"))


def test_a_folder_that_is_no_saved_model_and_a_damaged_file_are_errors(tmp_path, keras_path):
    with pytest.raises(BackboneError, match="cannot load the SavedModel"):
        load_backbone(str(tmp_path))
    keras_path.write_bytes(keras_path.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="is not a whole network saved by Keras"):
        load_backbone(str(keras_path))


def test_a_file_of_weights_alone_is_an_error(tmp_path):
    small_network().save_weights(tmp_path / "weights.h5")
    with pytest.raises(BackboneError, match="A file of weights lacks the layers"):
        load_backbone(str(tmp_path / "weights.h5"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_python_code_in_a_keras_file_is_refused_and_not_executed(tmp_path, suffix):
    mark, path = str(tmp_path / "mark"), tmp_path / f"hostile{suffix}"
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Lambda(lambda x: (__import__("pathlib").Path(mark).mkdir(), x)[1])(image)).save(
        path
    )
    Path(mark).rmdir()  # building the model ran the function once
    with pytest.raises(BackboneError, match="refused .*, because loading it would run Python code"):
        load_backbone(str(path))
    assert not Path(mark).exists()
    if suffix == ".h5":  # Keras itself refuses it only in its own format
        keras.models.load_model(path)
        assert Path(mark).exists()


def test_a_keras_file_that_names_a_module_of_python_is_refused(tmp_path, keras_path):
    hostile = tmp_path / "hostile.keras"
    with zipfile.ZipFile(keras_path) as source, zipfile.ZipFile(hostile, "w") as target:
        for member in source.namelist():
            content = source.read(member)
            if member == "config.json":
                content = content.replace(b'"module": "keras.initializers"', b'"module": "os.path"', 1)
            target.writestr(member, content)
    with pytest.raises(BackboneError, match="refused GlorotUniform of os.path"):
        load_backbone(str(hostile))
