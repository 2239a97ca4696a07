"""A push is all or nothing, whoever watches, whatever else is pushed, and whenever it is interrupted."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import json_format
from tfx.proto import pusher_pb2
from tfx.types import channel_utils, standard_artifacts
from tfx.utils import json_utils

from components import pusher
from components.pusher import AtomicPusher, AtomicPushExecutor, SmokeCheckError, load_in_fresh_process, push

FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets.extra/warm": b"requests"}


def _allow(folder: Path) -> None:
    """A check that every model passes."""


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder of files as an export has them."""
    for name, content in FILES.items():
        path = tmp_path / "exported" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "exported"


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _names(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def test_version_holds_every_file_and_is_named_by_the_time(exported: Path, tmp_path: Path) -> None:
    """As TFX's Pusher names it, in seconds."""
    before = int(time.time())
    pushed = push(str(exported), str(tmp_path / "serving"), check=_allow)
    assert before <= pushed.number <= time.time()
    assert pushed.path == str(tmp_path / "serving" / str(pushed.number))
    assert _content(Path(pushed.path)) == FILES
    assert _names(tmp_path / "serving") == [str(pushed.number)]


def test_watcher_never_sees_half_a_version(exported: Path, tmp_path: Path) -> None:
    """Whenever a numeric name is there, all of its files are."""
    base, stop, halves = tmp_path / "serving", threading.Event(), []
    base.mkdir()

    def watch() -> None:
        while not stop.is_set():
            halves.extend(name for name in _names(base) if name.isdigit() and _content(base / name) != FILES)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        push(str(exported), str(base), check=_allow)
    stop.set()
    watcher.join()
    assert halves == []
    assert len(_names(base)) == 20


def test_pushes_at_once_all_survive(exported: Path, tmp_path: Path) -> None:
    """Eight that are renamed at the same moment get eight numbers."""
    base, barrier, pushed = tmp_path / "serving", threading.Barrier(8), []

    def run() -> None:
        pushed.append(push(str(exported), str(base), check=lambda folder: barrier.wait() and None))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({version.number for version in pushed}) == 8
    assert sorted(str(version.number) for version in pushed) == _names(base)
    assert all(_content(base / name) == FILES for name in _names(base))


def test_push_is_newer_than_every_version_whatever_the_clock_says(exported: Path, tmp_path: Path) -> None:
    """A version from the future does not hide what is pushed after it."""
    (tmp_path / "serving" / "9999999999").mkdir(parents=True)
    assert push(str(exported), str(tmp_path / "serving"), check=_allow).number == 10_000_000_000


def test_refused_model_leaves_nothing(exported: Path, tmp_path: Path) -> None:
    """The check sees the whole copy under a name that is no number."""
    seen = []

    def refuse(folder: Path) -> None:
        seen.append((folder.name, _content(folder)))
        raise SmokeCheckError("no")

    with pytest.raises(SmokeCheckError):
        push(str(exported), str(tmp_path / "serving"), check=refuse)
    name, content = seen[0]
    assert name.startswith(".")
    assert name.endswith(".partial")
    assert content == FILES
    assert _names(tmp_path / "serving") == []


def test_killed_push_leaves_no_version_and_is_swept_up_a_day_later(exported: Path, tmp_path: Path) -> None:
    """A process that ends without warning between copy and rename."""
    base = tmp_path / "serving"
    killed = os.fork()
    if killed == 0:
        push(str(exported), str(base), check=lambda folder: os._exit(9))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(killed, 0)[1]) == 9
    (left,) = base.iterdir()
    assert left.name.endswith(".partial")
    fresh = push(str(exported), str(base), check=_allow)
    assert left.exists()
    os.utime(left, (0, 0))
    fresher = push(str(exported), str(base), check=_allow)
    assert _names(base) == sorted([str(fresh.number), str(fresher.number)])


def test_keep_leaves_the_newest_versions_and_what_is_no_version(exported: Path, tmp_path: Path) -> None:
    """Oldest first by number, not by name."""
    base = tmp_path / "serving"
    for name in ("9", "10", "00000011", "notes"):
        (base / name).mkdir(parents=True)
    pushed = push(str(exported), str(base), check=_allow, keep=3)
    assert _names(base) == sorted(["notes", "10", "00000011", str(pushed.number)])


def test_object_store_gets_the_marker_file_last(exported: Path, tmp_path: Path) -> None:
    """Where nothing can be renamed, no loader accepts the version before its saved_model.pb is there."""
    checked = []
    pushed = pusher._upload(str(exported), str(tmp_path), lambda folder: checked.append(_content(folder)))
    times = {path.name: path.stat().st_mtime_ns for path in Path(pushed.path).rglob("*") if path.is_file()}
    assert checked == [FILES]
    assert _content(Path(pushed.path)) == FILES
    assert max(times, key=lambda name: times[name]) == "saved_model.pb"


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


def _run_executor(
    tmp_path: Path, model_uri: Path, *, is_blessed: bool, config: dict[str, Any]
) -> tuple[Path, standard_artifacts.PushedModel]:
    model, blessing = standard_artifacts.Model(), standard_artifacts.ModelBlessing()
    model.uri, blessing.uri = str(model_uri), str(tmp_path / "blessing")
    blessing.set_int_custom_property("blessed", int(is_blessed))
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(tmp_path / "pushed")
    base = tmp_path / "serving"
    destination = pusher_pb2.PushDestination(filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(base)))
    statistics = standard_artifacts.ExampleStatistics()
    statistics.uri = str(tmp_path / "statistics")
    (tmp_path / "statistics/Split-train").mkdir(parents=True)
    (tmp_path / "statistics/Split-train/FeatureStats.pb").write_bytes(b"numbers")
    AtomicPushExecutor().Do(
        {"model": [model], "model_blessing": [blessing], "statistics": [statistics]},
        {"pushed_model": [pushed]},
        {
            "push_destination": json_format.MessageToJson(destination, preserving_proto_field_name=True),
            "custom_config": json_utils.dumps(config),
        },
    )
    return base, pushed


def test_blessed_model_is_pushed_and_recorded(exported: Path, tmp_path: Path) -> None:
    """The artifact says that, where, and as which version, as TFX's Pusher does; it holds a copy of the model.

    What is served has the statistics of the training images beside it, for the next run's drift check.
    """
    (tmp_path / "model").mkdir()
    exported.rename(tmp_path / "model" / "Format-Serving")
    base, pushed = _run_executor(tmp_path, tmp_path / "model", is_blessed=True, config={"smoke_check": False})
    (version,) = _names(base)
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_version") == version
    assert pushed.get_string_custom_property("pushed_destination") == str(base / version)
    assert _content(Path(pushed.uri)) == FILES
    assert _content(base / version) == {**FILES, "assets.extra/statistics/Split-train/FeatureStats.pb": b"numbers"}


def test_model_that_is_not_blessed_is_not_pushed(exported: Path, tmp_path: Path) -> None:
    """Not even the destination is made."""
    base, pushed = _run_executor(tmp_path, exported, is_blessed=False, config={})
    assert pushed.get_int_custom_property("pushed") == 0
    assert not base.exists()


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
