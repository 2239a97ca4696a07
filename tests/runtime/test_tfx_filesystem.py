"""TFX's file functions on an object store, which a folder replaces here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components.pusher.destination import newest_version
from components.resolvers.latest_pushed_model import LatestPushedModelExecutor
from runtime import object_store, tfx_filesystem
from runtime.object_store import REHEARSAL_STORE_VARIABLE


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(REHEARSAL_STORE_VARIABLE, str(tmp_path))
    object_store.store.cache_clear()
    tfx_filesystem.register({})
    yield tmp_path
    object_store.store.cache_clear()


def _model(folder: Path) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    return folder


def test_a_pushed_folder_comes_back_as_it_was(store: Path, tmp_path: Path) -> None:
    model = _model(tmp_path / "local" / "model")
    io_utils.copy_dir(str(model), "s3://bucket/serving/1")
    io_utils.copy_dir("s3://bucket/serving/1", str(tmp_path / "back"))
    files = {p.relative_to(tmp_path / "back").as_posix() for p in (tmp_path / "back").rglob("*") if p.is_file()}
    assert files == {"saved_model.pb", "variables/variables.index"}
    assert (store / "bucket/serving/1/saved_model.pb").read_bytes() == b"graph"


def test_text_is_written_and_read_as_utf8(store: Path) -> None:
    fileio.makedirs("minio://bucket/a")
    with fileio.open("minio://bucket/a/x.txt", "w") as file:
        file.write("schön")
    with fileio.open("minio://bucket/a/x.txt") as file:
        assert file.read() == "schön"


def test_a_missing_object_is_not_found(store: Path) -> None:
    assert not fileio.exists("s3://bucket/nothing")
    assert fileio.listdir("s3://bucket/nothing") == []
    with pytest.raises(fileio.NotFoundError, match="s3://bucket/nothing: no such object"):
        fileio.open("s3://bucket/nothing", "rb")


def test_the_newest_complete_version_is_the_baseline(store: Path) -> None:
    for version in ("9", "10"):
        _model(store / "bucket" / "serving" / version)
    (store / "bucket" / "serving" / "11").mkdir()  # still being written: no saved_model.pb yet
    assert newest_version("s3://bucket/serving") == "s3://bucket/serving/10"


def test_without_a_pushed_model_there_is_no_baseline(store: Path) -> None:
    assert newest_version("s3://bucket/serving") is None


def test_the_baseline_has_the_layout_that_the_evaluator_reads(store: Path, tmp_path: Path) -> None:
    _model(store / "bucket" / "serving" / "1")
    baseline = standard_artifacts.Model()
    baseline.uri = str(tmp_path / "baseline")
    properties = {"push_destination": "s3://bucket/serving"}
    LatestPushedModelExecutor().Do({}, {"model": [baseline]}, properties)
    assert (tmp_path / "baseline" / "Format-Serving" / "saved_model.pb").read_bytes() == b"graph"


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, {}),
        ({"AWS_REGION": "eu-north-1"}, {"region": "eu-north-1"}),
        (
            {"AWS_ENDPOINT_URL": "http://minio-service.kubeflow:9000/"},
            {"endpoint_override": "minio-service.kubeflow:9000", "scheme": "http", "region": "us-east-1"},
        ),
    ],
)
def test_the_usual_variables_locate_the_store(environment: dict[str, str], options: dict[str, str]) -> None:
    assert object_store.connection_options(environment) == options
