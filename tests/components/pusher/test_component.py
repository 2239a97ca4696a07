"""Only what is blessed, loads, and answers as it did when it was measured is pushed."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import json_format
from tfx.proto import pusher_pb2
from tfx.types import channel_utils, standard_artifacts
from tfx.utils import json_utils

from components.evaluation.parity_file import write_parity_file
from components.pusher.component import AtomicPusher, AtomicPushExecutor, check_in_new_process
from components.pusher.destination import PushError, rollback, versions
from schema.artifact_types import Analysis
from schema.artifacts import PARITY_FILE
from serving.model import smoke_check

CHECK = smoke_check.__name__


def _save(folder: Path, b: float = 2.0) -> Path:
    module = tf.Module()
    module.b = tf.Variable(b)
    run = tf.function(lambda x: {"y": x + module.b}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    tf.saved_model.save(module, str(folder), signatures={"serving_default": run})
    return folder


def test_a_new_process_accepts_a_model_and_rejects_a_broken_one(tmp_path: Path) -> None:
    """A SavedModel passes; the same without its variables fails with the reason."""
    good, broken = _save(tmp_path / "good"), _save(tmp_path / "broken")
    for path in (broken / "variables").iterdir():
        path.unlink()
    with ThreadPoolExecutor() as pool:
        passed, refused = (pool.submit(check_in_new_process, folder, check_module=CHECK) for folder in (good, broken))
    assert passed.exception() is None
    assert isinstance(refused.exception(), PushError)
    assert "not pushed: " in str(refused.exception())


class Brightness(tf.Module):
    """An image's error is its mean brightness in [0, 1]; the served error is `offset` higher."""

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
    """A model artifact whose served error is `offset` higher than the evaluated error."""
    module = Brightness(offset)
    signatures = {"serving_default": module.serving_default, "examples": module.examples}
    tf.saved_model.save(module, str(uri / "Format-Serving"), signatures=signatures)
    return uri


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose signatures all compute the same error."""
    return _model(tmp_path_factory.mktemp("model"), 0.0)


def _run_executor(
    tmp_path: Path,
    model_uri: Path,
    *,
    examples: Path | None = None,
    is_blessed: bool = True,
    check: str | None = CHECK,
) -> tuple[Path, standard_artifacts.PushedModel]:
    model, blessing = standard_artifacts.Model(), standard_artifacts.ModelBlessing()
    model.uri, blessing.uri = str(model_uri), str(tmp_path / "blessing")
    blessing.set_int_custom_property("blessed", int(is_blessed))
    inputs = {"model": [model], "model_blessing": [blessing]}
    if examples is not None:
        analysis = Analysis()
        analysis.uri = str(tmp_path)
        loaded = tf.saved_model.load(f"{model_uri}/Format-Serving")  # a signature alone would lose its variables
        assert write_parity_file(loaded.signatures["examples"], str(examples), f"{tmp_path}/{PARITY_FILE}") == IMAGES
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
            "custom_config": json_utils.dumps({"keep": None, "check_module": check}),
        },
    )
    return base, pushed


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_with_the_evaluated_errors_is_pushed_and_recorded(model: Path, examples: Path, tmp_path: Path) -> None:
    """The artifact has a copy of the model and the properties that TFX's Pusher sets.

    The pushed version also has the statistics of the training images, for the next run's drift check.
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


def test_a_model_with_other_errors_is_refused_and_the_image_is_named(examples: Path, tmp_path: Path) -> None:
    """The evaluated error of image 0 is 0; the destination stays empty."""
    with pytest.raises(PushError, match=r"test image 0 \(image/0\): its error is 0.001 when served, but was 0"):
        _run_executor(tmp_path, _model(tmp_path / "skewed", 0.001), examples=examples)
    assert [*(tmp_path / "serving").iterdir()] == []


def test_a_model_that_is_not_blessed_is_not_pushed(model: Path, tmp_path: Path) -> None:
    """The destination is not even created."""
    base, pushed = _run_executor(tmp_path, model, is_blessed=False)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not base.exists()


def test_a_model_pushed_by_a_killed_run_is_not_pushed_twice(model: Path, tmp_path: Path) -> None:
    """The version exists but its artifact was lost: the next run's artifact names the same version."""
    base, first = _run_executor(tmp_path, model, check=None)
    (version,) = base.iterdir()
    shutil.rmtree(first.uri)
    _, second = _run_executor(tmp_path, model, check=None)
    assert [*base.iterdir()] == [version]
    assert second.get_string_custom_property("pushed_destination") == str(version)
    assert _content(Path(second.uri)) == _content(model / "Format-Serving")


def test_a_withdrawn_model_is_not_pushed_again(model: Path, tmp_path: Path) -> None:
    """Even if it is blessed; the artifact has the reason."""
    base, _ = _run_executor(tmp_path, _model(tmp_path / "earlier", 1.0), check=None)
    _run_executor(tmp_path, model, check=None)
    rollback(str(base), check=lambda folder: None)
    before = versions(str(base))
    _, pushed = _run_executor(tmp_path, model, check=None)
    assert versions(str(base)) == before
    assert pushed.get_int_custom_property("pushed") == 0
    assert "a rollback withdrew this model" in pushed.get_string_custom_property("not_pushed_because")


def test_the_component_passes_the_path_of_the_check_to_its_executor() -> None:
    """The executor may run in another process, which gets only the component's parameters."""
    model = channel_utils.as_channel([standard_artifacts.Model()])
    destination = pusher_pb2.PushDestination(filesystem=pusher_pb2.PushDestination.Filesystem(base_directory="serving"))
    component = AtomicPusher(model=model, push_destination=destination, check=smoke_check, keep=3)
    config = json_utils.loads(component.exec_properties["custom_config"])
    assert config == {"keep": 3, "check_module": "serving.model.smoke_check"}
