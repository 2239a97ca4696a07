"""Only what is blessed, loads, and answers as it did when it was measured is pushed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import json_format
from tfx.proto import pusher_pb2
from tfx.types import channel_utils, standard_artifacts
from tfx.utils import json_utils

from components.evaluation.parity_file import write_parity_file
from components.pusher.component import AtomicPusher, AtomicPushExecutor, SmokeCheckError, load_in_fresh_process
from components.pusher.destination import rollback, versions
from schema.artifact_types import Analysis
from schema.artifacts import PARITY_FILE


def _save(folder: Path, b: float = 2.0) -> Path:
    module = tf.Module()
    module.b = tf.Variable(b)
    run = tf.function(lambda x: {"y": x + module.b}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": run})
    return folder


def test_fresh_process_tells_a_model_from_a_broken_one(tmp_path: Path) -> None:
    """A real SavedModel passes; without its variables it does not, and the message says why."""
    good, broken = _save(tmp_path / "good"), _save(tmp_path / "broken")
    for path in (broken / "variables").iterdir():
        path.unlink()
    with ThreadPoolExecutor() as pool:
        passed, refused = (pool.submit(load_in_fresh_process, folder) for folder in (good, broken))
    assert passed.exception() is None
    assert isinstance(refused.exception(), SmokeCheckError)
    assert "not pushed: " in str(refused.exception())


class Brightness(tf.Module):
    """An image's error is its mean brightness in [0, 1], plus `offset` where it is served."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = tf.Variable(offset)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def serving_default(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        error = self._error(image_bytes) + self.offset
        return {"error": error, "score": tf.identity(error)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        image = tf.io.FixedLenFeature([], tf.string)
        return {"error": self._error(tf.io.parse_example(examples, {"image": image})["image"])}

    def _error(self, image_bytes: tf.Tensor) -> tf.Tensor:
        def brightness(data: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.io.decode_png(data, channels=1)[:, :, 0] / 255)

        return tf.map_fn(lambda data: tf.cast(brightness(data), tf.float32), image_bytes, tf.float32)


IMAGES = 23


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of 23 flat images; image n has brightness n / 255."""
    folder = tmp_path_factory.mktemp("examples") / "Split-test"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "data.tfrecord")) as writer:
        for n in range(IMAGES):
            png = tf.io.encode_png(tf.fill([4, 4, 1], tf.constant(n, tf.uint8))).numpy()
            values = {"image": png, "image_id": f"image/{n}".encode(), "label": b""}
            features = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in values.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return folder


def _model(uri: Path, offset: float) -> Path:
    """Trainer's artifact: served, the error is `offset` higher than when it was measured."""
    module = Brightness(offset)
    doors = {"serving_default": module.serving_default, "examples": module.examples}
    tf.saved_model.save(module, str(uri / "Format-Serving"), signatures=doors)
    return uri


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that answers everywhere alike."""
    return _model(tmp_path_factory.mktemp("model"), 0.0)


def _run_executor(
    tmp_path: Path,
    model_uri: Path,
    *,
    examples: Path | None = None,
    is_blessed: bool = True,
    config: dict[str, Any] | None = None,
) -> tuple[Path, standard_artifacts.PushedModel]:
    model, blessing = standard_artifacts.Model(), standard_artifacts.ModelBlessing()
    model.uri, blessing.uri = str(model_uri), str(tmp_path / "blessing")
    blessing.set_int_custom_property("blessed", int(is_blessed))
    inputs = {"model": [model], "model_blessing": [blessing]}
    if examples is not None:
        analysis = Analysis()
        analysis.uri = str(tmp_path)
        assert write_parity_file(f"{model_uri}/Format-Serving", str(examples), f"{tmp_path}/{PARITY_FILE}") == IMAGES
        inputs["analysis"] = [analysis]
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = str(tmp_path / "statistics")
    (tmp_path / "statistics/Split-train").mkdir(parents=True, exist_ok=True)
    (tmp_path / "statistics/Split-train/FeatureStats.pb").write_bytes(b"numbers")
    inputs["statistics"] = [statistics]
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(tmp_path / "pushed")
    base = tmp_path / "serving"
    destination = pusher_pb2.PushDestination(filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(base)))
    AtomicPushExecutor().Do(
        inputs,
        {"pushed_model": [pushed]},
        {
            "push_destination": json_format.MessageToJson(destination, preserving_proto_field_name=True),
            "custom_config": json_utils.dumps(config or {}),
        },
    )
    return base, pushed


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_model_that_answers_as_in_the_evaluator_is_pushed_and_recorded(
    model: Path, examples: Path, tmp_path: Path
) -> None:
    """The artifact says that, where, and as which version, as TFX's Pusher does; it holds a copy.

    What is served has the statistics of the training images beside it, for the next run's drift check.
    """
    base, pushed = _run_executor(tmp_path, model, examples=examples)
    (version,) = base.iterdir()
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_version") == version.name
    assert pushed.get_string_custom_property("pushed_destination") == str(version)
    assert _content(Path(pushed.uri)) == _content(model / "Format-Serving")
    assert _content(version) == {
        **_content(model / "Format-Serving"),
        "assets.extra/statistics/Split-train/FeatureStats.pb": b"numbers",
    }


def test_model_that_answers_otherwise_is_refused_with_the_image_and_both_errors(examples: Path, tmp_path: Path) -> None:
    """Image 0 has the error 0 when measured; nothing is left in the destination."""
    with pytest.raises(SmokeCheckError, match=r"test image 0 \(image/0\): its error is 0.001 when served, but was 0"):
        _run_executor(tmp_path, _model(tmp_path / "skewed", 0.001), examples=examples)
    assert [*(tmp_path / "serving").iterdir()] == []


def test_model_that_is_not_blessed_is_not_pushed(model: Path, tmp_path: Path) -> None:
    """Not even the destination is made."""
    base, pushed = _run_executor(tmp_path, model, is_blessed=False)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not base.exists()


def test_a_model_that_a_killed_run_has_pushed_is_not_pushed_twice(model: Path, tmp_path: Path) -> None:
    """The version is there, the record of it was lost: the next run's artifact names the same version."""
    base, first = _run_executor(tmp_path, model, config={"smoke_check": False})
    (version,) = base.iterdir()
    shutil.rmtree(first.uri)
    _, second = _run_executor(tmp_path, model, config={"smoke_check": False})
    assert [*base.iterdir()] == [version]
    assert second.get_string_custom_property("pushed_destination") == str(version)
    assert _content(Path(second.uri)) == _content(model / "Format-Serving")


def test_withdrawn_model_is_not_pushed_again(model: Path, tmp_path: Path) -> None:
    """Blessed or not, until another model is trained; the artifact says why."""
    unchecked = {"smoke_check": False}
    base, _ = _run_executor(tmp_path, _model(tmp_path / "earlier", 1.0), config=unchecked)
    _run_executor(tmp_path, model, config=unchecked)
    rollback(str(base), check=lambda folder: None)
    before = versions(str(base))
    _, pushed = _run_executor(tmp_path, model, config=unchecked)
    assert versions(str(base)) == before
    assert pushed.get_int_custom_property("pushed") == 0
    assert "a rollback withdrew this model" in pushed.get_string_custom_property("not_pushed_because")


@pytest.mark.parametrize("config", [{"keep": 0}, {"keeep": 3}])
def test_component_refuses_a_configuration_it_does_not_know(config: dict[str, Any]) -> None:
    """Before anything runs."""
    model = channel_utils.as_channel([standard_artifacts.Model()])
    destination = pusher_pb2.PushDestination(filesystem=pusher_pb2.PushDestination.Filesystem(base_directory="serving"))
    with pytest.raises(ValueError, match="custom_config"):
        AtomicPusher(model=model, push_destination=destination, custom_config=config)
    component = AtomicPusher(model=model, push_destination=destination, custom_config={"keep": 3})
    assert component.id == "AtomicPusher"
    assert [*component.outputs] == ["pushed_model"]
